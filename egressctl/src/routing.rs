//! Where Envoy would send a call, as far as the objects at hand tell: to a Service, to the host of a ServiceEntry, or
//! through to the address that the client chose.
//!
//! The filter reads the route from Envoy. Here it is an assumption, and whoever makes use of it says so.

use std::net::IpAddr;

use egress_filter::pattern::HostPattern;
use egress_filter::policy::{Target, WireProtocol};
use egress_filter::registry::Family;

use crate::call::{Call, RouteName};
use crate::document::Node;
use crate::enforced::Enforced;
use crate::object::{Kind, Object};
use crate::service_entry::ServiceEntry;

/// What Istio would know about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// Where it goes.
    pub route: RouteName,
    /// Whether by its name, see [`Call::is_routed_by_name`].
    pub is_routed_by_name: bool,
    /// Why this is assumed.
    pub because: String,
}

/// Finds where a call of the sidecar would go.
#[must_use]
pub fn assume(call: &Call, objects: &[Object<'_>], enforced: &Enforced<'_>) -> Assumed {
    let namespace = enforced.node.namespace.as_deref().unwrap_or_default();
    let is_http = matches!(call.protocol, WireProtocol::Http | WireProtocol::Grpc);
    let port = call.port.unwrap_or_default();
    for object in objects {
        let found = match object.kind {
            Kind::Service => service(object, call, namespace),
            Kind::ServiceEntry => service_entry(object, call, namespace),
            _ => None,
        };
        if let Some(Found { host, by_name }) = found {
            return Assumed {
                route: RouteName::service(&host, port),
                is_routed_by_name: is_http || by_name,
                because: format!("Istio routes it to {object} ({})", object.location()),
            };
        }
    }
    // A request goes by its name; a connection by its address, which is the service's own only if the name was resolved.
    if let Target::Name(name) = &call.target
        && (is_http || call.address.is_none())
        && enforced.plugins.iter().any(|(_, policy)| policy.mesh().is_internal(name.as_str()))
    {
        let has_services = objects.iter().any(|object| object.kind == Kind::Service);
        let because = if has_services {
            format!(
                "{name} is under mesh.domains and taken for a service, but no Service here has it on port {port}: if there is \
                 none, ask with --route passthrough"
            )
        } else {
            format!("{name} is under mesh.domains: taken for a service that Istio has a route to")
        };
        return Assumed { route: RouteName::service(name.as_str(), port), is_routed_by_name: is_http, because };
    }
    let because = if objects.iter().any(|object| matches!(object.kind, Kind::Service | Kind::ServiceEntry)) {
        "no Service or ServiceEntry here has it: Envoy passes it through to the address that the client chose"
    } else {
        "no Service or ServiceEntry was given: taken as passed through to the address that the client chose"
    };
    Assumed { route: RouteName::passthrough(), is_routed_by_name: is_http, because: because.to_owned() }
}

struct Found {
    host: String,
    by_name: bool,
}

/// A Service is found on HTTP by each of its names, on anything else by its address.
fn service(object: &Object<'_>, call: &Call, namespace: &str) -> Option<Found> {
    let (name, own) = (object.name(), object.namespace());
    let host = format!("{name}.{own}.svc.cluster.local");
    let spec = object.spec()?;
    let ports = spec.elements("ports");
    if !ports.iter().any(|port| port.get("port").and_then(Node::port) == call.port) {
        return None;
    }
    let has_address = || {
        let address = spec.get("clusterIP").and_then(Node::text).and_then(|ip| ip.parse::<IpAddr>().ok());
        address.is_some() && address == call.address
    };
    if let (Target::Name(asked), WireProtocol::Http | WireProtocol::Grpc) = (&call.target, call.protocol) {
        let names = [format!("{name}.{own}"), format!("{name}.{own}.svc"), host.clone()];
        let is_short = own == namespace && asked.as_str() == name;
        if is_short || names.iter().any(|own| own == asked.as_str()) {
            return Some(Found { host, by_name: true });
        }
        return None;
    }
    has_address().then_some(Found { host, by_name: false })
}

/// A ServiceEntry is found on HTTP and TLS by its hosts, on anything else by its addresses.
fn service_entry(object: &Object<'_>, call: &Call, namespace: &str) -> Option<Found> {
    // One that istiod would not take routes nothing.
    let entry = ServiceEntry::of(*object).ok()??;
    if !entry.namespace.is_empty() && !entry.is_visible_in(namespace, &[]) {
        return None;
    }
    let wanted = match call.protocol {
        WireProtocol::Http | WireProtocol::Grpc => Family::Http,
        WireProtocol::Tls => Family::Tls,
        WireProtocol::Tcp => Family::Tcp,
    };
    let family = entry.ports.iter().find(|port| Some(port.number) == call.port)?.protocol.family();
    if let Target::Name(name) = &call.target
        && wanted != Family::Tcp
        && family.is_none_or(|family| family == wanted)
        && (wanted == Family::Http || entry.addresses.is_empty())
    {
        let matches = |host: &str| HostPattern::from_config(host).is_ok_and(|pattern| pattern.matches(name));
        let host = entry.hosts.iter().find(|host| matches(host.text))?;
        return Some(Found { host: host.text.to_owned(), by_name: true });
    }
    let address = call.address?;
    let has_address = entry.addresses.iter().any(|one| one.cidr.contains(address));
    // Without addresses a TCP port is open at any, as `0.0.0.0:port`.
    let is_open = family == Some(Family::Tcp) && entry.addresses.is_empty();
    if !has_address && !is_open {
        return None;
    }
    Some(Found { host: entry.hosts.first()?.text.to_owned(), by_name: false })
}
