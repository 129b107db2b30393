//! Setting: which objects have to change, judged by the filter's own reader before anything is shown.

use std::collections::BTreeMap;
use std::io::Write;

use egress_filter::config::KnownNode;
use egress_filter::policy::Mode;
use serde_json::json;

use super::apply::{self, Change, Consent, note};
use super::change::{self, Scope};
use super::enforced::{Meaning, meaning};
use super::mesh_config::{self, MeshConfig};
use super::plugins::{self, name_of};
use super::{OutboundTrafficPolicyArgs, Wanted};
use crate::cluster::Cluster;
use crate::configuration::Configuration;
use crate::document::Node;
use crate::failure::{Failure, Result};
use crate::object::{Kind, objects};
use crate::output::{self, Outcome};

/// What Istio's REGISTRY_ONLY costs.
const UNDER_REGISTRY_ONLY: &str = "under Istio's own REGISTRY_ONLY a host must be in both registries, and what Istio closes \
     before a byte is read is denied without its name (mesh_denied); the filter restricts without it, too";

/// Composes the changes, shows them, and makes them.
pub(super) fn run(
    args: &OutboundTrafficPolicyArgs,
    cluster: &Cluster,
    wanted: Wanted,
    out: &mut dyn Write,
) -> Result<Outcome> {
    let root = args.cluster.mesh.root_namespace.as_str();
    let namespace = args.namespace.as_deref();
    let documents = cluster.plugins(root, namespace)?;
    let configurations = plugins::configurations(&documents, root);
    let scopes: Vec<(Configuration<'_>, Scope<'_>)> = configurations
        .iter()
        .filter_map(|one| Some((*one, scope_of(one.object.namespace(), root, namespace)?)))
        .collect();
    let is_alone = args.mesh_config && wanted.enforcement.is_none();
    if scopes.is_empty() && !is_alone {
        return Err(not_installed(cluster, root, namespace));
    }
    let mut changes = Vec::new();
    let mut exceptions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (configuration, scope) in &scopes {
        let change = plugin_change(configuration, *scope, wanted, root, &mut exceptions)?;
        changes.extend(change);
    }
    let mut notes: Vec<String> =
        exceptions.iter().map(|(text, names)| format!("{text} ({})", names.join(", "))).collect();
    if namespace.is_none() {
        notes.extend(of_namespaces(&configurations, wanted, root));
    }
    let mesh = MeshConfig::read(cluster, root, &args.mesh_config_map);
    match wanted.mode {
        Some(mode) if args.mesh_config => {
            changes.extend(mesh_change(&mesh?, mode, root, &args.mesh_config_map)?);
            if mode == Mode::RegistryOnly {
                notes.push(UNDER_REGISTRY_ONLY.to_owned());
            }
        }
        // Only a remark: who may not read the ConfigMap does without.
        Some(Mode::AllowAny) if mesh.is_ok_and(|mesh| mesh.effective() == "REGISTRY_ONLY") => {
            let whose = "Istio's own policy is REGISTRY_ONLY: what Istio does not know stays closed";
            notes.push(match namespace {
                None => format!("{whose}; --mesh-config sets it, too"),
                Some(_) => whose.to_owned(),
            });
        }
        _ => {}
    }
    if changes.is_empty() {
        writeln!(out, "nothing to change: it is so already")?;
        out.flush()?;
        for text in &notes {
            note(text)?;
        }
        return Ok(Outcome::Clean);
    }
    let consent = match (args.dry_run, args.yes) {
        (true, _) => Consent::DryRun,
        (false, true) => Consent::Given,
        (false, false) => Consent::Ask,
    };
    apply::run(cluster, &changes, &notes, consent, out)
}

/// How a plugin is to change, if at all. A namespace's own is changed as a whole; a mesh-wide one by an override, because
/// both decide.
fn scope_of<'a>(own: &str, root: &str, namespace: Option<&'a str>) -> Option<Scope<'a>> {
    match namespace {
        None => (own == root).then_some(Scope::Mesh),
        // The root namespace, too: what its plugins say at the top is for the mesh.
        Some(namespace) if own == root => Some(Scope::Override(namespace)),
        Some(namespace) => (own == namespace).then_some(Scope::Own(namespace)),
    }
}

fn plugin_change(
    configuration: &Configuration<'_>,
    scope: Scope<'_>,
    wanted: Wanted,
    root: &str,
    exceptions: &mut BTreeMap<String, Vec<String>>,
) -> Result<Option<Change>> {
    let object = configuration.object;
    let refused = |problem: String| Failure::new(format!("{object}: {problem}\nnothing was changed"));
    let fields = change::fields(configuration, scope, wanted).map_err(refused)?;
    let patch = change::of_object(configuration, &fields);
    let after = [change::after(configuration, &patch)];
    let after_objects = objects(&after);
    let Some(changed) = after_objects.first().copied().and_then(Configuration::of) else {
        return Ok(None);
    };
    change::judge(&changed, scope, wanted).map_err(refused)?;
    for text in change::exceptions(&changed, scope, wanted, root) {
        exceptions.entry(text).or_default().push(name_of(object));
    }
    if changed.node().to_value() == configuration.node().to_value() {
        return Ok(None);
    }
    let shown = |configuration: &Configuration<'_>| {
        output::yaml(&change::of_object(configuration, &configuration.node().to_value()))
    };
    Ok(Some(Change {
        kind: object.kind,
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        title: object.to_string(),
        before: shown(configuration)?,
        after: shown(&changed)?,
        patch: change::merged(patch, &version_of(object.node)),
        owner: owner(object.node),
    }))
}

fn mesh_change(mesh: &MeshConfig, mode: Mode, namespace: &str, name: &str) -> Result<Option<Change>> {
    let title = format!("ConfigMap {namespace}/{name}");
    let Some(document) = &mesh.document else {
        return Err(Failure::new(format!(
            "there is no {title}; name the one that istiod reads with --mesh-config-map, such as istio-canary for the revision \
             canary\nnothing was changed"
        )));
    };
    let before = mesh_config::text_of(document).unwrap_or_default();
    let after = mesh_config::edited(before, mode);
    let after = after
        .map_err(|problem| Failure::new(format!("{title}: {}: {problem}\nnothing was changed", mesh_config::KEY)))?;
    if after == before {
        return Ok(None);
    }
    let patch = json!({"data": {mesh_config::KEY: after}});
    Ok(Some(Change {
        kind: Kind::ConfigMap,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        title,
        before: before.to_owned(),
        after,
        patch: change::merged(patch, &version_of(&document.root)),
        owner: owner(&document.root),
    }))
}

/// The part of a patch that lets it fail if the object has changed since it was read.
fn version_of(object: &Node) -> serde_json::Value {
    match object.within(&["metadata", "resourceVersion"]).and_then(Node::text) {
        Some(version) => json!({"metadata": {"resourceVersion": version}}),
        None => json!({}),
    }
}

fn not_installed(cluster: &Cluster, root: &str, namespace: Option<&str>) -> Failure {
    let (context, mesh_wide) = (cluster.context(), "kubectl apply -k istio/mesh-wide");
    Failure::new(match namespace {
        None => format!(
            "context {context}: there is no plugin of the filter in namespace {root}; install it for the mesh with \
             `{mesh_wide}` (docs/istio.md), name another root namespace with --root-namespace, or set Istio's own policy \
             alone with --mesh-config"
        ),
        Some(namespace) => format!(
            "context {context}: no plugin of the filter is on namespace {namespace}; install it for the mesh with \
             `{mesh_wide}`, or for the namespace with a copy of istio/namespace (docs/istio.md)"
        ),
    })
}

/// Namespaces whose own plugins decide, too, and differ from what the mesh gets.
fn of_namespaces(configurations: &[Configuration<'_>], wanted: Wanted, root: &str) -> Vec<String> {
    let mut notes: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for configuration in configurations.iter().filter(|one| one.object.namespace() != root) {
        let namespace = configuration.object.namespace().to_owned();
        let node = KnownNode { namespace: Some(namespace.clone()), ..KnownNode::default() };
        let meaning: Meaning = meaning(configuration, &node);
        let what = change::differing(wanted, &meaning).join(" and ");
        if !what.is_empty() {
            notes.entry((namespace, what)).or_default().push(name_of(configuration.object));
        }
    }
    let note = |((namespace, what), names): ((String, String), Vec<String>)| {
        format!("namespace {namespace} has plugins of its own, which decide, too: {what} ({})", names.join(", "))
    };
    notes.into_iter().map(note).collect()
}

/// Who keeps an object as it is somewhere else, as its labels and annotations tell.
fn owner(object: &Node) -> Option<&'static str> {
    let keys = ["labels", "annotations"].into_iter().filter_map(|field| object.within(&["metadata", field]));
    for field in keys.flat_map(Node::fields) {
        let owner = match field.key.as_str() {
            "app.kubernetes.io/managed-by" if field.value.text() == Some("Helm") => "Helm",
            key if key.starts_with("argocd.argoproj.io/") => "Argo CD",
            key if key.starts_with("kustomize.toolkit.fluxcd.io/") || key.starts_with("helm.toolkit.fluxcd.io/") => {
                "Flux"
            }
            _ => continue,
        };
        return Some(owner);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Document;

    #[test]
    fn changes_a_namespace_s_own_plugins_and_gives_mesh_wide_ones_an_override() {
        let scope = |own, namespace| scope_of(own, "istio-system", namespace);
        assert_eq!(scope("istio-system", None), Some(Scope::Mesh));
        assert_eq!(scope("shop", None), None);
        assert_eq!(scope("istio-system", Some("shop")), Some(Scope::Override("shop")));
        assert_eq!(scope("shop", Some("shop")), Some(Scope::Own("shop")));
        assert_eq!(scope("bank", Some("shop")), None);
        assert_eq!(scope("istio-system", Some("istio-system")), Some(Scope::Override("istio-system")));
    }

    #[test]
    fn knows_who_keeps_an_object_elsewhere() {
        let of =
            |metadata: serde_json::Value| owner(&Document::from_cluster("lab", json!({"metadata": metadata})).root);
        assert_eq!(of(json!({"labels": {"app.kubernetes.io/managed-by": "Helm"}})), Some("Helm"));
        assert_eq!(of(json!({"annotations": {"argocd.argoproj.io/tracking-id": "x"}})), Some("Argo CD"));
        assert_eq!(of(json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}})), Some("Flux"));
        assert_eq!(of(json!({"labels": {"app.kubernetes.io/managed-by": "kubectl", "app": "x"}})), None);
        assert_eq!(of(json!({})), None);
    }
}
