//! What the filter enforces: for the sidecars of a namespace, by each plugin that is on them, and by all together.
//!
//! Sidecars of a namespace differ only by what an override, a plugin's selector or a Sidecar's selector names, so those
//! names are what is looked at: each by itself, not in every combination.

use std::collections::{BTreeMap, BTreeSet};

use egress_filter::config::{InvalidConfig, KnownNode};
use egress_filter::policy::{Enforcement, Mode};

use crate::configuration::{Configuration, Plugin};

/// What one configuration means for some sidecars.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The filter takes it.
    Policy {
        mode: Mode,
        enforcement: Enforcement,
        /// Distinct host patterns of the registry.
        hosts: u32,
    },
    /// The filter refuses it.
    Invalid(InvalidConfig),
}

impl Meaning {
    /// How strict it is with what is not registered: a higher one decides where several do. What is broken comes first.
    fn strictness(&self) -> u8 {
        match self {
            Meaning::Invalid(_) => 4,
            Meaning::Policy { mode: Mode::RegistryOnly, enforcement: Enforcement::Enforce, .. } => 3,
            Meaning::Policy { mode: Mode::RegistryOnly, enforcement: Enforcement::Report, .. } => 2,
            Meaning::Policy { mode: Mode::AllowAny, enforcement: Enforcement::Enforce, .. } => 1,
            Meaning::Policy { mode: Mode::AllowAny, enforcement: Enforcement::Report, .. } => 0,
        }
    }
}

/// One configuration that decides, and what it means.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    /// The plugin.
    pub configuration: Configuration<'a>,
    /// What it means for these sidecars.
    pub meaning: Meaning,
}

/// The strictest of several: what passes has passed all.
pub(super) fn strictest<'p>(parts: &'p [Part<'_>]) -> Option<&'p Meaning> {
    parts.iter().map(|part| &part.meaning).max_by_key(|meaning| meaning.strictness())
}

/// The plugins of a cluster, and what they mean for which sidecars. A configuration is read once for all sidecars that the
/// same of its overrides match.
#[derive(Debug)]
pub(super) struct Policies<'a> {
    configurations: Vec<Configuration<'a>>,
    /// For each configuration the first with the same text: the two plugins mostly have one.
    same_text: Vec<usize>,
    root_namespace: &'a str,
    /// By text, and by which overrides match.
    read: BTreeMap<(usize, Vec<bool>), Meaning>,
}

impl<'a> Policies<'a> {
    pub(super) fn new(configurations: Vec<Configuration<'a>>, root_namespace: &'a str) -> Self {
        let texts: Vec<String> = configurations.iter().map(Configuration::json).collect();
        let first = |text: &String| texts.iter().position(|other| other == text).unwrap_or_default();
        let same_text = texts.iter().map(first).collect();
        Policies { configurations, same_text, root_namespace, read: BTreeMap::new() }
    }

    /// What decides for the sidecar of `node` in one plugin; with which overrides of each match it.
    fn parts(&mut self, plugin: Plugin, node: &KnownNode) -> Vec<(Part<'a>, Vec<bool>)> {
        let mut parts = Vec::new();
        for (index, configuration) in self.configurations.iter().enumerate() {
            if !configuration.is_for(plugin) || !configuration.is_on(node, self.root_namespace) {
                continue;
            }
            let matching: Vec<bool> =
                (0..configuration.overrides().len()).map(|position| configuration.matches(position, node)).collect();
            let text = self.same_text.get(index).copied().unwrap_or(index);
            let meaning = self.read.entry((text, matching.clone())).or_insert_with(|| meaning(configuration, node));
            parts.push((Part { configuration: *configuration, meaning: meaning.clone() }, matching));
        }
        parts
    }

    /// What is enforced in a namespace: for its sidecars at large, then for each that something tells apart.
    /// `selectors` are labels that tell sidecars apart besides.
    pub(super) fn of_namespace(&mut self, namespace: &str, selectors: &[BTreeMap<&str, &str>]) -> Vec<Sidecars<'a>> {
        let at_large = node_of(namespace, None, &BTreeMap::new());
        let mut nodes: BTreeSet<(Option<String>, BTreeMap<String, String>)> = BTreeSet::new();
        for configuration in &self.configurations {
            for node in told_apart(configuration, namespace, self.root_namespace) {
                nodes.insert((node.workload, node.labels));
            }
        }
        for labels in selectors {
            nodes.insert((None, node_of(namespace, None, labels).labels));
        }
        let mut all = vec![self.sidecars(at_large)];
        for (workload, labels) in nodes {
            all.push(self.sidecars(KnownNode { namespace: Some(namespace.to_owned()), workload, labels }));
        }
        all
    }

    fn sidecars(&mut self, node: KnownNode) -> Sidecars<'a> {
        let mut decided_by = Vec::new();
        let mut parts_of = |plugin| {
            let parts = self.parts(plugin, &node);
            decided_by.extend(parts.iter().map(|(part, matching)| (name(&part.configuration), matching.clone())));
            parts.into_iter().map(|(part, _)| part).collect()
        };
        let http = parts_of(Plugin::Http);
        let tcp = parts_of(Plugin::Tcp);
        Sidecars { node, http, tcp, decided_by }
    }
}

/// Sidecars that nothing tells apart, and what decides there.
#[derive(Clone, Debug)]
pub(super) struct Sidecars<'a> {
    /// Namespace; workload or labels where these tell them apart.
    pub node: KnownNode,
    /// What decides in `egress-http`.
    pub http: Vec<Part<'a>>,
    /// What decides in `egress-tcp`.
    pub tcp: Vec<Part<'a>>,
    /// Which configurations, and which overrides of each match.
    decided_by: Vec<(String, Vec<bool>)>,
}

impl Sidecars<'_> {
    /// Whether the same overrides of the same plugins decide there.
    pub(super) fn are_decided_as(&self, other: &Sidecars<'_>) -> bool {
        self.decided_by == other.decided_by
    }
}

fn name(configuration: &Configuration<'_>) -> String {
    super::plugins::name_of(configuration.object)
}

/// What one configuration means for the sidecar of `node`.
pub(super) fn meaning(configuration: &Configuration<'_>, node: &KnownNode) -> Meaning {
    match configuration.policy(node) {
        Ok(policy) => Meaning::Policy {
            mode: policy.mode(),
            enforcement: policy.enforcement(),
            hosts: policy.registry().host_patterns(),
        },
        Err(invalid) => Meaning::Invalid(invalid),
    }
}

/// The sidecars of a namespace that a configuration's overrides or selector tell apart by workload or label.
pub(super) fn told_apart(configuration: &Configuration<'_>, namespace: &str, root_namespace: &str) -> Vec<KnownNode> {
    let mut nodes = Vec::new();
    let own = configuration.object.namespace();
    if own != namespace && own != root_namespace {
        return nodes;
    }
    let selector = configuration.selector();
    if !selector.is_empty() {
        nodes.push(node_of(namespace, None, &selector));
    }
    for criteria in configuration.criteria() {
        let is_here = criteria.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(&namespace));
        if !is_here || (criteria.workloads.is_none() && criteria.labels.is_empty()) {
            continue;
        }
        let mut labels = selector.clone();
        labels.extend(criteria.labels);
        match criteria.workloads {
            None => nodes.push(node_of(namespace, None, &labels)),
            Some(workloads) => {
                nodes.extend(workloads.into_iter().map(|workload| node_of(namespace, Some(workload), &labels)));
            }
        }
    }
    nodes
}

/// The node of a namespace's sidecars.
pub(super) fn node_of(namespace: &str, workload: Option<&str>, labels: &BTreeMap<&str, &str>) -> KnownNode {
    KnownNode {
        namespace: Some(namespace.to_owned()),
        workload: workload.map(str::to_owned),
        labels: labels.iter().map(|(&key, &value)| (key.to_owned(), value.to_owned())).collect(),
    }
}
