//! Which plugins of the filter a cluster has. Sidecars only: what is attached to a gateway or waypoint by `targetRefs`, and
//! what istiod makes of another object, is left out.

use crate::cluster::Cluster;
use crate::configuration::Configuration;
use crate::document::Node;
use crate::failure::Result;
use crate::object::{Kind, Object, objects};
use crate::source::Document;

/// What istiod names the TrafficExtension that it makes of a WasmPlugin.
const TRANSLATED: &str = "~istio-translated-wasmplugin";

/// Every object that may be a plugin of the filter; with a namespace only those that are on its sidecars.
pub(super) fn read(cluster: &Cluster, root_namespace: &str, namespace: Option<&str>) -> Result<Vec<Document>> {
    list(cluster, &[Kind::WasmPlugin, Kind::TrafficExtension], root_namespace, namespace)
}

/// Objects of these kinds in all namespaces, or in the root namespace and this one.
pub(super) fn list(
    cluster: &Cluster,
    kinds: &[Kind],
    root_namespace: &str,
    namespace: Option<&str>,
) -> Result<Vec<Document>> {
    let mut documents = Vec::new();
    for &kind in kinds {
        match namespace {
            None => documents.extend(cluster.list(kind, None)?),
            Some(namespace) => {
                documents.extend(cluster.list(kind, Some(root_namespace))?);
                if namespace != root_namespace {
                    documents.extend(cluster.list(kind, Some(namespace))?);
                }
            }
        }
    }
    Ok(documents)
}

/// The filter's plugins among them: the root namespace's first, then by namespace, name and kind.
pub(super) fn configurations<'a>(documents: &'a [Document], root_namespace: &str) -> Vec<Configuration<'a>> {
    let found = objects(documents).into_iter().filter(|object| !is_elsewhere(*object)).filter_map(Configuration::of);
    let mut found: Vec<_> = found.filter(|configuration| configuration.plugin.is_some()).collect();
    found.sort_by_key(|configuration| {
        let object = configuration.object;
        (object.namespace() != root_namespace, object.namespace(), object.name(), object.kind)
    });
    found
}

fn is_elsewhere(object: Object<'_>) -> bool {
    let spec = |key| object.spec().and_then(|spec| spec.get(key));
    let has_target = spec("targetRef").is_some() || spec("targetRefs").is_some_and(|list| !list.list().is_empty());
    let owners = object.node.within(&["metadata", "ownerReferences"]).map(Node::list).unwrap_or_default();
    let is_owned = owners.iter().any(|owner| owner.get("kind").and_then(Node::text) == Some("WasmPlugin"));
    has_target || is_owned || object.name().ends_with(TRANSLATED)
}

/// `istio-system/egress-http`; a TrafficExtension says so, because its names are its own.
pub(super) fn name_of(object: Object<'_>) -> String {
    let name = format!("{}/{}", object.namespace(), object.name());
    if object.kind == Kind::TrafficExtension { format!("TrafficExtension {name}") } else { name }
}
