//! Istio's Sidecar: which of the services that are exported to a namespace its workloads import, and their mode.
//!
//! This is istiod's own matching, letter by letter and with its exclusions (`pilot/pkg/model/sidecar.go`), not that of
//! the filter: it compares a Sidecar's hosts with the hosts of ServiceEntries, never with what is on the wire.

use std::collections::BTreeMap;

use crate::document::Node;
use crate::field::{Element, FieldReader, InvalidObject, Text};
use crate::object::{Kind, Object};

#[cfg(test)]
mod tests;

/// A Sidecar.
#[derive(Debug)]
pub struct Sidecar<'a> {
    /// The object.
    pub object: Object<'a>,
    /// Its namespace; empty where the file leaves that to `kubectl apply -n`: whoever knows it may set it.
    pub namespace: &'a str,
    /// The labels of the workloads that it is for; `None` without a `workloadSelector`. Empty: all of the namespace.
    pub selector: Option<BTreeMap<&'a str, &'a str>>,
    /// What happens to what is not imported; `None`: the mesh's own setting counts.
    pub mode: Option<OutboundMode>,
    /// In their order; none imports everything.
    pub listeners: Vec<EgressListener<'a>>,
}

/// `outboundTrafficPolicy.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundMode {
    /// Also where `outboundTrafficPolicy` stands there without a mode.
    RegistryOnly,
    /// All passes.
    AllowAny,
    /// All passes, by Istio's own look-up of the name.
    AllowAnyDynamicDns,
}

/// An element of `egress`.
#[derive(Debug)]
pub struct EgressListener<'a> {
    /// For what.
    pub port: ListenerPort,
    /// Where it stands.
    pub node: &'a Node,
    hosts: Vec<EgressHost<'a>>,
}

/// What an egress listener listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerPort {
    /// Every port that has no listener of its own.
    CatchAll,
    /// This port, for the services that have it.
    Number(u16),
    /// A proxy or a Unix socket, which workloads address by themselves.
    Other,
}

/// An element of `egress[].hosts`: `NAMESPACE/NAME`.
#[derive(Clone, Copy, Debug)]
struct EgressHost<'a> {
    /// `~`: takes services away.
    excludes: bool,
    namespace: ServiceNamespace<'a>,
    name: &'a str,
}

#[derive(Clone, Copy, Debug)]
enum ServiceNamespace<'a> {
    Any,
    /// `.`: the workload's.
    Own,
    Named(&'a str),
}

impl<'a> Sidecar<'a> {
    /// Reads a Sidecar; `None` if the object is something else.
    ///
    /// # Errors
    ///
    /// Everything in it that istiod would not take either.
    pub fn of(object: Object<'a>) -> Result<Option<Self>, InvalidObject> {
        if object.kind != Kind::Sidecar {
            return Ok(None);
        }
        let mut reader = FieldReader::new(object);
        let Some(spec) = reader.map(object.node, "", "spec") else {
            reader.complain(object.node, "spec", "it is missing; add it, with egress");
            return reader.finish(None);
        };
        let sidecar = Sidecar {
            object,
            namespace: object.namespace(),
            selector: selector(&mut reader, spec),
            mode: mode(&mut reader, spec),
            listeners: listeners(&mut reader, spec),
        };
        reader.finish(Some(sidecar))
    }

    /// Whether it is for every workload of its namespace.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.selector.as_ref().is_none_or(BTreeMap::is_empty)
    }

    /// Whether the workloads of the namespace `own` that it is for may reach `host` on `port`, where `host` is one of a
    /// ServiceEntry of `namespace` that is exported to them.
    #[must_use]
    pub fn selects_port(&self, own: &str, namespace: &str, host: &str, port: u16) -> bool {
        if self.listeners.is_empty() {
            return true;
        }
        // A port with a listener of its own is not served by the catch-all. (For ports that are not HTTP istiod falls back
        // to it where that listener imports nothing at all; that takes all services of a mesh to know, and nobody means it.)
        let has = |wanted| self.listeners.iter().find(|listener| listener.port == wanted);
        let listener = has(ListenerPort::Number(port)).or_else(|| has(ListenerPort::CatchAll));
        listener.is_some_and(|listener| listener.selects(own, namespace, host))
    }

    /// The same, on any port at all.
    #[must_use]
    pub fn selects(&self, own: &str, namespace: &str, host: &str) -> bool {
        self.listeners.is_empty()
            || self
                .listeners
                .iter()
                .any(|listener| listener.port != ListenerPort::Other && listener.selects(own, namespace, host))
    }
}

impl EgressListener<'_> {
    fn selects(&self, own: &str, namespace: &str, host: &str) -> bool {
        let is_named = |named: &EgressHost<'_>| {
            let in_namespace = match named.namespace {
                ServiceNamespace::Any => true,
                ServiceNamespace::Own => namespace == own,
                ServiceNamespace::Named(name) => namespace == name,
            };
            in_namespace && is_subset(host, named.name)
        };
        let (excluding, including): (Vec<_>, Vec<_>) = self.hosts.iter().partition(|named| named.excludes);
        including.into_iter().any(is_named) && !excluding.into_iter().any(is_named)
    }
}

/// Whether all that `host` names is named by `pattern`, too: `host.Name.SubsetOf` of Istio.
fn is_subset(host: &str, pattern: &str) -> bool {
    match (host.strip_prefix('*'), pattern.strip_prefix('*')) {
        (Some(host), Some(pattern)) => host.len() >= pattern.len() && host.ends_with(pattern),
        (Some(_), None) => false,
        (None, Some(pattern)) => host.ends_with(pattern),
        (None, None) => host == pattern,
    }
}

/// The Sidecars of a mesh.
#[derive(Debug)]
pub struct Sidecars<'a> {
    /// By namespace, in the order in which istiod looks for one that selects a workload.
    by_namespace: BTreeMap<&'a str, Vec<Sidecar<'a>>>,
    root_namespace: &'a str,
}

impl<'a> Sidecars<'a> {
    /// Sidecars in any order.
    #[must_use]
    pub fn new(sidecars: Vec<Sidecar<'a>>, root_namespace: &'a str) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<Sidecar<'a>>> = BTreeMap::new();
        for sidecar in sidecars {
            by_namespace.entry(sidecar.namespace).or_default().push(sidecar);
        }
        for sidecars in by_namespace.values_mut() {
            // Those with a selector first, then the oldest. The text of Kubernetes' times sorts as the times do.
            sidecars.sort_by_key(|sidecar| {
                let created = sidecar.object.node.within(&["metadata", "creationTimestamp"]).and_then(Node::text);
                (sidecar.selector.is_none(), created.unwrap_or_default(), sidecar.object.name())
            });
        }
        Sidecars { by_namespace, root_namespace }
    }

    /// The namespaces that have any.
    pub fn namespaces(&self) -> impl Iterator<Item = &'a str> {
        self.by_namespace.keys().copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Sidecar<'a>> {
        self.by_namespace.values().flatten()
    }

    /// The one for the workloads of a namespace that none selects by their labels: the namespace's own, or that of the
    /// root namespace. `None`: they import everything.
    #[must_use]
    pub fn default_of(&self, namespace: &str) -> Option<&Sidecar<'a>> {
        let own = self.of(namespace).iter().find(|sidecar| sidecar.is_for_all());
        own.or_else(|| self.of(self.root_namespace).iter().find(|sidecar| sidecar.selector.is_none()))
    }

    /// Those for some workloads of a namespace, the one that counts first.
    pub fn for_workloads_of(&self, namespace: &str) -> impl DoubleEndedIterator<Item = &Sidecar<'a>> {
        let sidecars = self.of(namespace);
        let end = sidecars.iter().position(Sidecar::is_for_all).unwrap_or(sidecars.len());
        sidecars.iter().take(end)
    }

    /// Those that count for no workload, because another of their namespace comes first.
    #[must_use]
    pub fn unused(&self) -> Vec<&Sidecar<'a>> {
        // Behind a first one with an empty selector, the root namespace's one without a selector still is the mesh's.
        let of_mesh = self.of(self.root_namespace).iter().find(|sidecar| sidecar.selector.is_none());
        let mut unused = Vec::new();
        for sidecars in self.by_namespace.values() {
            let used = sidecars.iter().position(Sidecar::is_for_all).map_or(sidecars.len(), |first| first + 1);
            let is_of_mesh = |sidecar: &&Sidecar<'_>| of_mesh.is_some_and(|of_mesh| std::ptr::eq(of_mesh, *sidecar));
            unused.extend(sidecars.iter().skip(used).filter(|sidecar| !is_of_mesh(sidecar)));
        }
        unused
    }

    fn of(&self, namespace: &str) -> &[Sidecar<'a>] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }
}

fn selector<'a>(reader: &mut FieldReader<'a>, spec: &'a Node) -> Option<BTreeMap<&'a str, &'a str>> {
    let selector = reader.map(spec, "spec", "workloadSelector")?;
    let mut labels = BTreeMap::new();
    if let Some(node) = reader.map(selector, "spec.workloadSelector", "labels") {
        for field in node.fields() {
            match field.value.text() {
                Some(text) => {
                    labels.insert(field.key.as_str(), text);
                }
                None => {
                    let path = format!("spec.workloadSelector.labels.{}", field.key);
                    reader.complain(&field.value, path, "expected a text; put it in quotes");
                }
            }
        }
    }
    Some(labels)
}

fn mode<'a>(reader: &mut FieldReader<'a>, spec: &'a Node) -> Option<OutboundMode> {
    let policy = reader.map(spec, "spec", "outboundTrafficPolicy")?;
    let Some(Text { text, node }) = reader.text(policy, "spec.outboundTrafficPolicy", "mode") else {
        return Some(OutboundMode::RegistryOnly);
    };
    match text {
        "REGISTRY_ONLY" => Some(OutboundMode::RegistryOnly),
        "ALLOW_ANY" => Some(OutboundMode::AllowAny),
        "ALLOW_ANY_DYNAMIC_DNS" => Some(OutboundMode::AllowAnyDynamicDns),
        _ => {
            let message = "unknown value; use one of REGISTRY_ONLY, ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS";
            reader.complain(node, "spec.outboundTrafficPolicy.mode", message);
            None
        }
    }
}

fn listeners<'a>(reader: &mut FieldReader<'a>, spec: &'a Node) -> Vec<EgressListener<'a>> {
    let mut listeners = Vec::new();
    for Element { path, node } in reader.list(spec, "spec", "egress") {
        let port = match reader.map(node, &path, "port") {
            None => ListenerPort::CatchAll,
            Some(port) => listener_port(reader, port, &format!("{path}.port")),
        };
        let mut hosts = Vec::new();
        let texts = reader.texts(node, &path, "hosts");
        if node.get("hosts").is_none_or(|hosts| hosts.list().is_empty()) {
            reader.complain(node, format!("{path}.hosts"), "there is none; use \"*/*\" for every service");
        }
        for (index, Text { text, node }) in texts.into_iter().enumerate() {
            match egress_host(text) {
                Some(host) => hosts.push(host),
                None => {
                    let message = "must be NAMESPACE/NAME, such as \"./*\" or \"shared/api.example.com\"";
                    reader.complain(node, format!("{path}.hosts[{index}]"), message);
                }
            }
        }
        listeners.push(EgressListener { port, node, hosts });
    }
    listeners
}

fn listener_port<'a>(reader: &mut FieldReader<'a>, port: &'a Node, path: &str) -> ListenerPort {
    let is_proxy = reader.text(port, path, "protocol").is_some_and(|text| text.text.eq_ignore_ascii_case("HTTP_PROXY"));
    match reader.port(port, path, "number") {
        Some(number @ 1..) if !is_proxy => ListenerPort::Number(number),
        // Without a number it is a Unix socket.
        _ => ListenerPort::Other,
    }
}

fn egress_host(text: &str) -> Option<EgressHost<'_>> {
    let (namespace, name) = text.split_once('/')?;
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return None;
    }
    let (excludes, namespace) = match namespace.strip_prefix('~') {
        Some(rest) => (true, rest),
        None => (false, namespace),
    };
    let namespace = match namespace {
        // `~/NAME` alone.
        "" | "*" => ServiceNamespace::Any,
        "." => ServiceNamespace::Own,
        name => ServiceNamespace::Named(name),
    };
    Some(EgressHost { excludes, namespace, name })
}
