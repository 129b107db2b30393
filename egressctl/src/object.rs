//! Kubernetes objects within documents, and plugin configurations that stand there bare.

use std::fmt;

use crate::document::Node;
use crate::source::{Document, Location};

/// What an object is, as far as this program cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A plugin configuration without an object around it.
    Configuration,
    /// `extensions.istio.io` WasmPlugin.
    WasmPlugin,
    /// `extensions.istio.io` TrafficExtension, what a WasmPlugin is becoming.
    TrafficExtension,
    /// `networking.istio.io` ServiceEntry.
    ServiceEntry,
    /// `networking.istio.io` Sidecar.
    Sidecar,
    /// `networking.istio.io` EnvoyFilter.
    EnvoyFilter,
    /// A Kubernetes Service.
    Service,
    /// A Kubernetes Namespace.
    Namespace,
    /// A Kubernetes ConfigMap.
    ConfigMap,
    /// A Kubernetes Pod.
    Pod,
    /// Anything else.
    Other,
}

/// One object of a document.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// What it is.
    pub kind: Kind,
    /// The document that it stands in.
    pub document: &'a Document,
    /// The object, or the bare configuration.
    pub node: &'a Node,
}

impl<'a> Object<'a> {
    /// `metadata.name`; empty if there is none.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.node.within(&["metadata", "name"]).and_then(Node::text).unwrap_or_default()
    }

    /// `metadata.namespace`; empty if there is none, as in files that leave it to `kubectl apply -n`.
    #[must_use]
    pub fn namespace(&self) -> &'a str {
        self.node.within(&["metadata", "namespace"]).and_then(Node::text).unwrap_or_default()
    }

    /// `spec`.
    #[must_use]
    pub fn spec(&self) -> Option<&'a Node> {
        self.node.get("spec")
    }

    /// Where it begins.
    #[must_use]
    pub fn location(&self) -> Location {
        self.document.locate(self.node)
    }
}

/// `WasmPlugin shop/egress-http`.
impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == Kind::Configuration {
            return f.write_str("configuration");
        }
        f.write_str(self.node.get("kind").and_then(Node::text).unwrap_or("object"))?;
        match (self.namespace(), self.name()) {
            ("", name) => write!(f, " {name}"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// The objects of documents, in their order; lists are taken apart.
#[must_use]
pub fn objects(documents: &[Document]) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    for document in documents {
        add(document, &document.root, &mut objects);
    }
    objects
}

fn add<'a>(document: &'a Document, node: &'a Node, objects: &mut Vec<Object<'a>>) {
    let kind = node.get("kind").and_then(Node::text);
    if let (Some(kind), Some(items)) = (kind, node.get("items"))
        && kind.ends_with("List")
    {
        for item in items.list() {
            add(document, item, objects);
        }
        return;
    }
    let kind = match kind {
        None if node.get("apiVersion").is_none() && may_be_configuration(document, node) => Kind::Configuration,
        Some("WasmPlugin") => Kind::WasmPlugin,
        Some("TrafficExtension") => Kind::TrafficExtension,
        Some("ServiceEntry") => Kind::ServiceEntry,
        Some("Sidecar") => Kind::Sidecar,
        Some("EnvoyFilter") => Kind::EnvoyFilter,
        Some("Service") => Kind::Service,
        Some("Namespace") => Kind::Namespace,
        Some("ConfigMap") => Kind::ConfigMap,
        Some("Pod") => Kind::Pod,
        _ => Kind::Other,
    };
    objects.push(Object { kind, document, node });
}

/// A file that the user named is taken for a configuration, and its errors say if it is none. In a folder there may be
/// anything.
fn may_be_configuration(document: &Document, node: &Node) -> bool {
    let is_known = |key: &str| egress_filter::config::FIELDS.contains(&key);
    document.is_named || node.fields().iter().any(|field| is_known(&field.key))
}
