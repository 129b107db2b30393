//! Which plugins of the filter a cluster has.

use crate::cluster::Cluster;
use crate::configuration::Configuration;
use crate::failure::Result;
use crate::object::{Kind, Object, objects};
use crate::source::Document;

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
    let found = objects(documents).into_iter().filter_map(Configuration::of);
    let mut found: Vec<_> = found.filter(|configuration| configuration.plugin.is_some()).collect();
    found.sort_by_key(|configuration| {
        let object = configuration.object;
        (object.namespace() != root_namespace, object.namespace(), object.name(), object.kind)
    });
    found
}

/// `istio-system/egress-http`; a TrafficExtension says so, because its names are its own.
pub(super) fn name_of(object: Object<'_>) -> String {
    let name = format!("{}/{}", object.namespace(), object.name());
    if object.kind == Kind::TrafficExtension { format!("TrafficExtension {name}") } else { name }
}
