//! From evidence to the call that the policy can be asked about, and what became of it.
//!
//! A connection's line names its SNI where a `tls_inspector` ran. Elsewhere the filter's own values do, for everything but
//! the reasons `listed` and `mesh_internal`; what they cannot tell is not made up.

use std::net::{IpAddr, SocketAddr};

use egress_filter::inspect::Asked;
use egress_filter::name::{Authority, Host, InvalidName};
use egress_filter::policy::{Reason, Target, Unnamed, WireProtocol};

use super::Skip;
use super::evidence::{Evidence, Kind};
use crate::call::{Call, RouteName};
use crate::configuration::Plugin;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passage {
    /// It passed, if only because of REPORT.
    Passed,
    /// The filter denied it.
    Denied,
    /// The mesh itself had no way out for it.
    DeniedByMesh,
}

/// A call, as its lines tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedCall {
    /// The caller's namespace.
    pub namespace: String,
    /// The caller.
    pub workload: String,
    /// What was called.
    pub call: Call,
    /// What became of it.
    pub passage: Passage,
    /// Whether the mesh lets nothing out on this way, whatever the filter says.
    pub is_blocked_by_mesh: bool,
    /// What the filter wrote.
    pub reason: Option<Reason>,
    /// Whether the log has a place for the filter's verdict, so that none means listed, or inside the mesh.
    pub has_verdict: bool,
    /// Whether the call may have had a name that the line does not tell.
    pub may_have_name: bool,
    /// Whether the line does not tell the port, so that the usual one was taken.
    pub is_port_assumed: bool,
}

/// The port of HTTP without TLS (RFC 9110, section 4.2.1).
pub const HTTP_PORT: u16 = 80;
/// The port of HTTP over TLS (RFC 9110, section 4.2.2), by far the most usual of TLS.
const TLS_PORT: u16 = 443;

impl LoggedCall {
    /// The call that evidence tells of.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub fn of(evidence: &Evidence<'_>) -> Result<Self, Skip> {
        let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == evidence.reason);
        let destination = address(evidence.destination);
        let mut named = match evidence.kind {
            Kind::Request | Kind::Connect => request(evidence, reason)?,
            Kind::Connection => connection(evidence, reason, destination.map(|(_, port)| port))?,
        };
        if destination.is_none() && evidence.kind == Kind::Connection && matches!(named.target, Target::Unnamed(_)) {
            return Err(Skip::NoDestination);
        }
        let is_request = evidence.kind != Kind::Connection;
        let usual = if named.protocol == WireProtocol::Tls { TLS_PORT } else { HTTP_PORT };
        let port = destination.map_or_else(|| named.port.unwrap_or(usual), |(_, port)| port);
        let is_blocked = evidence.cluster == "BlackHoleCluster" || evidence.route_name == "block_all";
        let passage = match (evidence.verdict, reason) {
            (_, Some(Reason::MeshDenied)) => Passage::DeniedByMesh,
            ("denied", _) => Passage::Denied,
            _ if is_blocked => Passage::DeniedByMesh,
            _ => Passage::Passed,
        };
        // A name in clear that the policy would have to see; where it was denied, the filter has seen it, or that there is none.
        named.may_be_hidden &= matches!(named.target, Target::Unnamed(_));
        Ok(LoggedCall {
            namespace: printable(evidence.namespace),
            workload: printable(evidence.workload),
            call: Call {
                plugin: if is_request { Plugin::Http } else { Plugin::Tcp },
                protocol: named.protocol,
                route: route(evidence, &named.target),
                target: named.target,
                address: destination.map(|(address, _)| address),
                port: Some(port),
                connect_port: named.port.filter(|_| evidence.kind == Kind::Connect),
                is_routed_by_name: is_request || !evidence.server_name.is_empty(),
            },
            passage,
            is_blocked_by_mesh: is_blocked,
            reason,
            has_verdict: !evidence.verdict.is_empty(),
            may_have_name: named.may_be_hidden,
            is_port_assumed: destination.is_none(),
        })
    }
}

impl LoggedCall {
    /// What was called, as people would say it: the name, or the address without the port.
    #[must_use]
    pub fn host(&self) -> String {
        match (&self.call.target, self.call.address) {
            (Target::Name(name), _) => name.to_string(),
            (Target::Ip(ip), _) => ip.to_string(),
            (Target::Unnamed(Unnamed::InvalidName | Unnamed::Nameless), _) if self.call.plugin == Plugin::Http => {
                INVALID.to_owned()
            }
            (Target::Unnamed(_), Some(address)) => address.to_string(),
            (Target::Unnamed(_), None) => INVALID.to_owned(),
        }
    }
}

/// Whom a call names.
struct Named {
    protocol: WireProtocol,
    target: Target<'static>,
    /// The authority's port.
    port: Option<u16>,
    may_be_hidden: bool,
}

impl Named {
    fn new(protocol: WireProtocol, target: Target<'_>) -> Self {
        Named { protocol, target: target.into_owned(), port: None, may_be_hidden: false }
    }

    fn unnamed(protocol: WireProtocol, unnamed: Unnamed) -> Self {
        Named::new(protocol, Target::Unnamed(unnamed))
    }

    /// Of these bytes nobody knows more than where they went.
    fn hidden() -> Self {
        Named { may_be_hidden: true, ..Named::unnamed(WireProtocol::Tcp, Unnamed::Opaque) }
    }
}

fn request(evidence: &Evidence<'_>, reason: Option<Reason>) -> Result<Named, Skip> {
    let authority = if evidence.authority.is_empty() { evidence.host } else { evidence.authority };
    if authority.is_empty() || (evidence.authority.is_empty() && authority == INVALID) {
        let is_known = reason == Some(Reason::InvalidName);
        return if is_known {
            Ok(Named::unnamed(WireProtocol::Http, Unnamed::Nameless))
        } else {
            Err(Skip::NoDestination)
        };
    }
    if evidence.authority.is_empty() && authority.contains('*') {
        return Err(Skip::OnlyPattern);
    }
    let parsed = Authority::from_wire(authority.as_bytes());
    let port = parsed.as_ref().ok().and_then(|authority| authority.port);
    let target = Target::from(parsed.map(|authority| authority.host));
    Ok(Named { port, ..Named::new(WireProtocol::Http, target) })
}

/// The label of a host that is no name.
const INVALID: &str = "invalid";

fn connection(evidence: &Evidence<'_>, reason: Option<Reason>, port: Option<u16>) -> Result<Named, Skip> {
    if !evidence.server_name.is_empty() {
        let asked = Asked::tls(evidence.server_name.as_bytes()).destination;
        return Ok(Named::new(asked.protocol, asked.target));
    }
    let Some(reason) = reason else {
        return Ok(Named::hidden());
    };
    match reason {
        Reason::NoSni => Ok(Named::unnamed(WireProtocol::Tls, Unnamed::NoSni)),
        Reason::InvalidName => Ok(Named::unnamed(WireProtocol::Tls, Unnamed::InvalidName)),
        Reason::InvalidClientHello => Ok(Named::unnamed(WireProtocol::Tls, Unnamed::InvalidClientHello)),
        Reason::NoClientData => Ok(Named::unnamed(WireProtocol::Tcp, Unnamed::NoClientData)),
        Reason::ServerFirst => Ok(Named::unnamed(WireProtocol::Tcp, Unnamed::ServerFirst)),
        Reason::MeshDenied | Reason::Listed | Reason::MeshInternal => Ok(Named::hidden()),
        _ if evidence.host.contains('*') => Err(Skip::OnlyPattern),
        _ => Ok(by_label(evidence.host, port)),
    }
}

/// What the filter counted a connection under: a name, an address with a port, or a prefix of an entry.
fn by_label(host: &str, port: Option<u16>) -> Named {
    if host.contains('/') || address(host).is_some() || host.parse::<IpAddr>().is_ok() {
        return Named::unnamed(WireProtocol::Tcp, Unnamed::Opaque);
    }
    // Plain HTTP names a host, too; the line does not tell which of both it was.
    let protocol = if port == Some(HTTP_PORT) { WireProtocol::Http } else { WireProtocol::Tls };
    match Host::from_wire(host.as_bytes()) {
        Ok(Host::Name(name)) => Named::new(protocol, Target::Name(name)),
        Ok(Host::Ip(_)) | Err(InvalidName::Empty) => Named::hidden(),
        Err(_) => Named::unnamed(protocol, Unnamed::InvalidName),
    }
}

fn route(evidence: &Evidence<'_>, target: &Target<'_>) -> RouteName {
    if !evidence.cluster.is_empty() {
        return RouteName::Cluster(evidence.cluster.to_owned());
    }
    match (evidence.kind, evidence.route_name, target) {
        // It ended before Envoy chose an upstream, which catch-all chains alone allow.
        (Kind::Connection, ..) => RouteName::passthrough(),
        (Kind::Connect, ..) | (_, "", _) => RouteName::VirtualHost(String::new()),
        (_, catch_all @ ("block_all" | "allow_any"), _) => RouteName::VirtualHost(catch_all.to_owned()),
        // A redirect or direct response: of whose virtual host, the line does not tell.
        (_, _, Target::Name(name)) => RouteName::VirtualHost(name.as_str().to_owned()),
        _ => RouteName::VirtualHost(String::new()),
    }
}

/// A text of a log, which may hold what a terminal obeys.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn address(text: &str) -> Option<(IpAddr, u16)> {
    let address: SocketAddr = text.parse().ok()?;
    Some((address.ip().to_canonical(), address.port()))
}
