//! Who may see what: each host and port of each ServiceEntry, sorted by the namespaces and workloads that see it.
//!
//! The registry of a configuration is for every sidecar that has it, so what only some may see goes to overrides, which
//! only add. A mesh-wide configuration is also for namespaces that nobody named; they are one more viewer, who has no
//! ServiceEntry and no Sidecar of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::External;
use super::finding::Findings;
use crate::istio_sidecar::{Sidecar, Sidecars};

/// One host of one ServiceEntry on one port, by their positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// In the sorted ServiceEntries.
    pub entry: usize,
    /// In its hosts.
    pub host: usize,
    /// In its ports.
    pub port: usize,
}

/// What is to be seen, and by whom.
#[derive(Debug)]
pub struct View<'a> {
    /// Sorted by namespace and name.
    pub entries: &'a [External<'a>],
    /// See [`super::entry::tls_ports`].
    pub tls_ports: &'a BTreeSet<u16>,
    /// All Sidecars.
    pub sidecars: &'a Sidecars<'a>,
    /// `meshConfig.defaultServiceExportTo`; empty is `*`.
    pub default_export_to: &'a [String],
}

/// For whom a configuration is.
#[derive(Debug)]
pub enum Scope<'a> {
    /// The sidecars of one namespace.
    Namespace(&'a str),
    /// All sidecars; these namespaces are known.
    Mesh(BTreeSet<&'a str>),
}

/// What some workloads of a namespace see by a Sidecar of their own, compared with what the namespace sees.
#[derive(Debug)]
pub struct WorkloadView<'a> {
    /// Their Sidecar.
    pub sidecar: &'a Sidecar<'a>,
    /// What they see beyond their namespace.
    pub more: Vec<Piece>,
    /// What they do not see of it.
    pub less: Vec<Piece>,
}

/// Everything that anybody of a scope sees; all lists sorted.
#[derive(Debug, Default)]
pub struct Audiences<'a> {
    /// What everyone sees.
    pub everyone: Vec<Piece>,
    /// What only these namespaces see.
    pub namespaces: BTreeMap<Vec<&'a str>, Vec<Piece>>,
    /// What workloads see, by namespace; within one, the Sidecar that counts last comes first, since later overrides win.
    pub workloads: Vec<WorkloadView<'a>>,
    /// What namespaces that nobody named would see, too, if it could be said.
    pub withheld: Vec<Piece>,
}

/// No namespace has this name.
pub const UNKNOWN_NAMESPACE: &str = "";

impl<'a> Scope<'a> {
    /// The namespaces that are known.
    #[must_use]
    pub fn namespaces(&self) -> Vec<&'a str> {
        match self {
            Scope::Namespace(namespace) => vec![namespace],
            Scope::Mesh(namespaces) => namespaces.iter().copied().collect(),
        }
    }

    /// The namespace whose view is that of every sidecar that no override is for.
    #[must_use]
    pub fn any_namespace(&self) -> &'a str {
        match self {
            Scope::Namespace(namespace) => namespace,
            Scope::Mesh(_) => UNKNOWN_NAMESPACE,
        }
    }
}

impl WorkloadView<'_> {
    /// Warns of what the workloads have beyond their Sidecar, because overrides only add: what their namespace has, and
    /// what this Sidecar gives to workloads that `counting_first` are for as well.
    pub fn warn(&self, counting_first: &[WorkloadView<'_>], view: &View<'_>, findings: &mut Findings) {
        let object = self.sidecar.object;
        if !self.less.is_empty() {
            let message = format!(
                "it has less than its namespace, and the filter cannot take away what a namespace has: these workloads may \
                 reach {}, too",
                view.describe(&self.less)
            );
            findings.warn(object, object.node, "spec.egress", message);
        }
        for other in counting_first {
            let more: Vec<Piece> = self.more.iter().filter(|piece| !other.more.contains(piece)).copied().collect();
            if !more.is_empty() && self.may_share_workloads(other) {
                let message = format!(
                    "workloads that {} selects, too, have only that one in Istio; here they may reach {} as well",
                    other.sidecar.object,
                    view.describe(&more)
                );
                findings.warn(object, object.node, "spec.workloadSelector", message);
            }
        }
    }

    /// Whether one workload may have the labels of both.
    fn may_share_workloads(&self, other: &WorkloadView<'_>) -> bool {
        let (Some(own), Some(others)) = (&self.sidecar.selector, &other.sidecar.selector) else {
            return true;
        };
        self.sidecar.namespace == other.sidecar.namespace
            && own.iter().all(|(key, value)| others.get(key).is_none_or(|other| other == value))
    }
}

impl<'a> View<'a> {
    /// Sorts everything by who sees it.
    #[must_use]
    pub fn audiences(&self, scope: &Scope<'a>) -> Audiences<'a> {
        let viewer = |namespace| (namespace, self.sidecars.default_of(namespace));
        let known: Vec<_> = scope.namespaces().into_iter().map(viewer).collect();
        let others = viewer(scope.any_namespace());
        let mut audiences = Audiences::default();
        for (position, external) in self.entries.iter().enumerate() {
            // What `exportTo` says is the same for all hosts and ports.
            let is_exported = |namespace| external.entry.is_visible_in(namespace, self.default_export_to);
            let exported: Vec<_> = known.iter().filter(|(namespace, _)| is_exported(namespace)).collect();
            let is_exported_to_others = is_exported(others.0);
            for piece in external.pieces(position) {
                let imports = |viewer: &(&str, Option<&Sidecar<'_>>)| external.is_imported(viewer.0, viewer.1, piece);
                let seeing = exported.iter().filter(|viewer| imports(viewer)).map(|viewer| viewer.0).collect();
                audiences.add(piece, seeing, known.len(), is_exported_to_others && imports(&others));
            }
        }
        for (namespace, of_namespace) in known {
            for sidecar in self.sidecars.for_workloads_of(namespace).rev() {
                audiences.workloads.push(self.workload_view(namespace, of_namespace, sidecar));
            }
        }
        audiences
    }

    fn workload_view(
        &self,
        namespace: &str,
        of_namespace: Option<&Sidecar<'_>>,
        sidecar: &'a Sidecar<'a>,
    ) -> WorkloadView<'a> {
        let mut view = WorkloadView { sidecar, more: Vec::new(), less: Vec::new() };
        for (position, external) in self.entries.iter().enumerate() {
            if !external.entry.is_visible_in(namespace, self.default_export_to) {
                continue;
            }
            for piece in external.pieces(position) {
                let imports = |sidecar| external.is_imported(namespace, sidecar, piece);
                match (imports(of_namespace), imports(Some(sidecar))) {
                    (false, true) => view.more.push(piece),
                    (true, false) => view.less.push(piece),
                    _ => {}
                }
            }
        }
        view
    }

    /// The entries of the registry for some pieces, which are sorted.
    #[must_use]
    pub fn render(&self, pieces: &[Piece]) -> Vec<serde_json::Value> {
        let of_entry = |pieces: &[Piece]| {
            let entry = pieces.first().and_then(|piece| self.entries.get(piece.entry))?;
            let pairs: Vec<(usize, usize)> = pieces.iter().map(|piece| (piece.host, piece.port)).collect();
            Some(entry.render(&pairs, self.tls_ports))
        };
        pieces.chunk_by(|a, b| a.entry == b.entry).filter_map(of_entry).flatten().collect()
    }

    /// Some pieces in words: `api.stripe.com:443 (shop/stripe)`.
    #[must_use]
    pub fn describe(&self, pieces: &[Piece]) -> String {
        let describe = |piece: &Piece| {
            let external = self.entries.get(piece.entry)?;
            let host = external.entry.hosts.get(piece.host)?.text;
            Some(format!("{host}:{} ({})", external.ports.get(piece.port)?.number, external.entry.name()))
        };
        pieces.iter().filter_map(describe).collect::<Vec<_>>().join(", ")
    }
}

impl External<'_> {
    /// Its hosts and ports; `entry` is its own position.
    fn pieces(&self, entry: usize) -> impl Iterator<Item = Piece> + use<> {
        let ports = self.ports.len();
        (0..self.entry.hosts.len()).flat_map(move |host| (0..ports).map(move |port| Piece { entry, host, port }))
    }

    /// Whether a Sidecar lets the workloads of a namespace have a piece that is exported to them.
    fn is_imported(&self, namespace: &str, sidecar: Option<&Sidecar<'_>>, piece: Piece) -> bool {
        let (Some(host), Some(port)) = (self.entry.hosts.get(piece.host), self.ports.get(piece.port)) else {
            return false;
        };
        sidecar.is_none_or(|sidecar| sidecar.selects_port(namespace, self.entry.namespace, host.text, port.number))
    }
}

impl<'a> Audiences<'a> {
    /// Adds a piece that `seeing` see, of `known` namespaces in all, and whether those that nobody named do.
    fn add(&mut self, piece: Piece, seeing: Vec<&'a str>, known: usize, others_see: bool) {
        if others_see && seeing.len() == known {
            self.everyone.push(piece);
            return;
        }
        if others_see {
            self.withheld.push(piece);
        }
        if seeing.is_empty() {
            return;
        }
        match self.namespaces.get_mut(&seeing) {
            Some(pieces) => pieces.push(piece),
            None => {
                self.namespaces.insert(seeing, vec![piece]);
            }
        }
    }
}
