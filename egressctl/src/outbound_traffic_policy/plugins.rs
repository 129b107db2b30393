//! Which plugins of the filter a cluster has.

use crate::configuration::Configuration;
use crate::object::{Kind, Object, objects};
use crate::source::Document;

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
