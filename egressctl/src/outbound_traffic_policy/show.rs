//! Showing: Istio's own policy in one line, then what the filter enforces under it, one line for each namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use egress_filter::config::InvalidConfig;
use serde::Serialize;

use super::enforced::{Meaning, Part, Policies, Sidecars, strictest};
use super::mesh_config::{self, MeshConfig};
use super::plugins::{self, name_of};
use super::{OutboundTrafficPolicyArgs, enforcement_name, mode_name, workloads_of};
use crate::cluster::Cluster;
use crate::configuration::Plugin;
use crate::failure::Result;
use crate::object::{Kind, Object, objects};
use crate::output::{self, BAD, DIM, Format, GOOD, Outcome, Table, WARNING, styled};

/// Reads all that decides, and prints it.
pub(super) fn run(args: &OutboundTrafficPolicyArgs, cluster: &Cluster, out: &mut dyn Write) -> Result<Outcome> {
    let root = args.cluster.mesh.root_namespace.as_str();
    let namespace = args.namespace.as_deref();
    let mesh = MeshConfig::read(cluster, root, &args.mesh_config_map)?;
    let documents = cluster.plugins(root, namespace)?;
    let sidecars = cluster.list_for(&[Kind::Sidecar], root, namespace)?;
    let sidecars = objects(&sidecars);
    let namespaces = match namespace {
        Some(namespace) => BTreeSet::from([namespace.to_owned()]),
        None => objects(&cluster.list(Kind::Namespace, None)?).iter().map(|one| one.name().to_owned()).collect(),
    };
    let mut policies = Policies::new(plugins::configurations(&documents, root), root);
    let mut shown = Shown {
        context: cluster.context().to_owned(),
        mesh: ShownMesh {
            config_map: format!("{root}/{}", args.mesh_config_map),
            is_found: mesh.document.is_some(),
            mode: mesh.mode.clone(),
            effective_mode: mesh.effective().to_owned(),
        },
        namespaces: Vec::new(),
        problems: BTreeMap::new(),
    };
    let mut table = Table::new(&["NAMESPACE", "PLUGIN", "MODE", "ENFORCEMENT", "HOSTS", "FROM"]);
    for namespace in namespaces {
        for group in groups(&mut policies, &sidecars, &namespace, root) {
            let istio = Istio::of(&sidecars, &group, root, &mesh);
            add_rows(&mut table, &group, &istio);
            for (plugin, parts) in [(Plugin::Http, &group.http), (Plugin::Tcp, &group.tcp)] {
                for part in parts {
                    if let Meaning::Invalid(invalid) = &part.meaning {
                        shown.problems.insert(part.configuration.object.to_string(), problems_of(invalid));
                    }
                }
                shown.namespaces.push(ShownPlugin::of(&group, plugin, parts, &istio));
            }
        }
    }
    let outcome = Outcome::of_findings(!shown.problems.is_empty());
    match args.output {
        Format::Table => {
            writeln!(out, "{}\n", mesh_line(&shown.mesh))?;
            table.write(out)?;
            for (object, problems) in &shown.problems {
                let more =
                    if problems.len() > 1 { format!(" (and {} more)", problems.len() - 1) } else { String::new() };
                let first = problems.first().map_or("", String::as_str);
                writeln!(out, "\n{} {object} is refused by the filter: {first}{more}", styled(BAD, "INVALID"))?;
            }
        }
        format => output::document(out, format, &shown)?,
    }
    Ok(outcome)
}

/// The first line, in the words of the issue.
fn mesh_line(mesh: &ShownMesh) -> String {
    let default = "Istio's default 'ALLOW_ANY' holds";
    match (&mesh.mode, mesh.is_found) {
        (Some(mode), _) => format!("mesh wide outbound traffic policy is set to '{mode}'"),
        (None, true) => {
            format!("mesh wide outbound traffic policy is not set in ConfigMap {}: {default}", mesh.config_map)
        }
        (None, false) => {
            format!(
                "mesh wide outbound traffic policy is not found, there is no ConfigMap {}: {default}",
                mesh.config_map
            )
        }
    }
}

/// The sidecars of a namespace: at large, and those for which something else holds.
fn groups<'a>(policies: &mut Policies<'a>, sidecars: &[Object<'_>], namespace: &str, root: &str) -> Vec<Sidecars<'a>> {
    let selectors: Vec<BTreeMap<&str, &str>> = sidecars
        .iter()
        .filter(|sidecar| sidecar.namespace() == namespace)
        .map(|sidecar| mesh_config::selector(*sidecar).into_iter().collect())
        .filter(|labels: &BTreeMap<_, _>| !labels.is_empty())
        .collect();
    let mut groups = policies.of_namespace(namespace, &selectors).into_iter();
    let at_large = groups.next();
    let Some(at_large) = at_large else {
        return Vec::new();
    };
    let istio = |group: &Sidecars<'_>| mesh_config::by_sidecar(sidecars, &group.node, root).map(|(mode, _)| mode);
    let others = groups.filter(|group| !group.are_decided_as(&at_large) || istio(group) != istio(&at_large));
    let others: Vec<_> = others.collect();
    std::iter::once(at_large).chain(others).collect()
}

/// What Istio does by itself.
struct Istio {
    mode: String,
    /// The Sidecar that sets it, if one does.
    sidecar: Option<String>,
}

impl Istio {
    fn of(sidecars: &[Object<'_>], group: &Sidecars<'_>, root: &str, mesh: &MeshConfig) -> Self {
        match mesh_config::by_sidecar(sidecars, &group.node, root) {
            Some((mode, object)) => {
                let sidecar = format!("{}/{}", object.namespace(), object.name());
                Istio { mode, sidecar: Some(sidecar) }
            }
            None => Istio { mode: mesh.effective().to_owned(), sidecar: None },
        }
    }

    fn by_sidecar(&self) -> Option<String> {
        self.sidecar.as_ref().map(|sidecar| format!("{} by Sidecar {sidecar}", self.mode))
    }
}

/// One row for both plugins where the same holds in both, and one more for each configuration where several decide.
fn add_rows(table: &mut Table, group: &Sidecars<'_>, istio: &Istio) {
    let name = group.node.namespace.as_deref().unwrap_or_default();
    let name = match workloads_of(&group.node) {
        workloads if workloads.is_empty() => name.to_owned(),
        workloads => format!("{name} ({workloads})"),
    };
    let (http, tcp) = (&group.http, &group.tcp);
    let is_same = http.len() == tcp.len() && http.iter().zip(tcp).all(|(one, other)| are_alike(one, other));
    if http.is_empty() && tcp.is_empty() {
        let alone = istio.by_sidecar().unwrap_or_else(|| istio.mode.clone());
        let dash = || styled(DIM, "-");
        table.row(vec![name, dash(), dash(), dash(), dash(), format!("Istio alone: {alone}")]);
    } else if is_same {
        let rows = http.iter().zip(tcp).map(|(one, other)| {
            let names = BTreeSet::from([name_of(one.configuration.object), name_of(other.configuration.object)]);
            (&one.meaning, names.into_iter().collect::<Vec<_>>().join(", "))
        });
        add_parts(table, &name, "both", http, rows.collect(), istio);
    } else {
        for (plugin, parts) in [(Plugin::Http, http), (Plugin::Tcp, tcp)] {
            let rows = parts.iter().map(|part| (&part.meaning, name_of(part.configuration.object)));
            add_parts(table, &name, plugin.root_id(), parts, rows.collect(), istio);
        }
    }
}

/// Whether two parts, one of each plugin, are one installation's.
fn are_alike(one: &Part<'_>, other: &Part<'_>) -> bool {
    one.meaning == other.meaning && one.configuration.object.namespace() == other.configuration.object.namespace()
}

fn add_parts(
    table: &mut Table,
    name: &str,
    plugin: &str,
    parts: &[Part<'_>],
    rows: Vec<(&Meaning, String)>,
    istio: &Istio,
) {
    let under = istio.by_sidecar().map(|text| format!("; Istio: {text}")).unwrap_or_default();
    let row = |name: &str, plugin: &str, meaning: Option<&Meaning>, is_sum: bool, from: String| {
        let (mode, enforcement, hosts) = cells(meaning);
        let hosts = if is_sum { styled(DIM, "-") } else { hosts };
        vec![name.to_owned(), plugin.to_owned(), mode, enforcement, hosts, from]
    };
    match rows.as_slice() {
        [(meaning, from)] => table.row(row(name, plugin, Some(meaning), false, format!("{from}{under}"))),
        [] => table.row(row(
            name,
            plugin,
            None,
            false,
            format!("Istio alone: {}", istio.by_sidecar().unwrap_or_else(|| istio.mode.clone())),
        )),
        several => {
            table.row(row(name, plugin, strictest(parts), true, format!("the strictest of these{under}:")));
            for (meaning, from) in several {
                table.row(row("", "", Some(meaning), false, format!("- {from}")));
            }
        }
    }
}

fn cells(meaning: Option<&Meaning>) -> (String, String, String) {
    let dash = || styled(DIM, "-");
    match meaning {
        None => (dash(), dash(), dash()),
        Some(Meaning::Invalid(_)) => (styled(BAD, "INVALID"), dash(), dash()),
        Some(Meaning::Policy { mode, enforcement, hosts }) => {
            let enforced = match enforcement_name(*enforcement) {
                "ENFORCE" => styled(GOOD, "ENFORCE"),
                other => styled(WARNING, other),
            };
            (mode_name(*mode).to_owned(), enforced, hosts.to_string())
        }
    }
}

fn problems_of(invalid: &InvalidConfig) -> Vec<String> {
    invalid.to_string().lines().map(str::to_owned).collect()
}

/// What is shown, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    context: String,
    mesh: ShownMesh,
    namespaces: Vec<ShownPlugin>,
    /// By object, for those that the filter refuses.
    problems: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownMesh {
    config_map: String,
    #[serde(rename = "found")]
    is_found: bool,
    mode: Option<String>,
    effective_mode: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownPlugin {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    plugin: &'static str,
    /// Of the strictest of `decidedBy`; null where the filter is not.
    #[serde(flatten)]
    effective: ShownMeaning,
    istio: ShownIstio,
    decided_by: Vec<ShownPart>,
}

#[derive(Serialize)]
struct ShownIstio {
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sidecar: Option<String>,
}

#[derive(Serialize)]
struct ShownPart {
    object: String,
    #[serde(flatten)]
    meaning: ShownMeaning,
    #[serde(skip_serializing_if = "Option::is_none")]
    hosts: Option<u32>,
}

#[derive(Serialize)]
struct ShownMeaning {
    /// `INVALID` for what the filter refuses.
    mode: Option<&'static str>,
    enforcement: Option<&'static str>,
}

impl ShownMeaning {
    fn of(meaning: Option<&Meaning>) -> Self {
        match meaning {
            None => ShownMeaning { mode: None, enforcement: None },
            Some(Meaning::Invalid(_)) => ShownMeaning { mode: Some("INVALID"), enforcement: None },
            Some(Meaning::Policy { mode, enforcement, .. }) => {
                ShownMeaning { mode: Some(mode_name(*mode)), enforcement: Some(enforcement_name(*enforcement)) }
            }
        }
    }
}

impl ShownPlugin {
    fn of(group: &Sidecars<'_>, plugin: Plugin, parts: &[Part<'_>], istio: &Istio) -> Self {
        let decided_by = parts.iter().map(|part| ShownPart {
            object: part.configuration.object.to_string(),
            meaning: ShownMeaning::of(Some(&part.meaning)),
            hosts: match part.meaning {
                Meaning::Policy { hosts, .. } => Some(hosts),
                Meaning::Invalid(_) => None,
            },
        });
        ShownPlugin {
            namespace: group.node.namespace.clone().unwrap_or_default(),
            workload: group.node.workload.clone(),
            labels: group.node.labels.clone(),
            plugin: plugin.root_id(),
            effective: ShownMeaning::of(strictest(parts)),
            istio: ShownIstio { mode: istio.mode.clone(), sidecar: istio.sidecar.clone() },
            decided_by: decided_by.collect(),
        }
    }
}
