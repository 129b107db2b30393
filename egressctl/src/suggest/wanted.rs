//! Whether a call should be listed, and under what; or why not.

use std::net::IpAddr;

use egress_filter::mesh::Route;
use egress_filter::name::HostName;
use egress_filter::policy::{Reason, Target, Unnamed, WireProtocol};

use crate::access_log::{LoggedCall, Passage, Skip};
use crate::enforced::Enforced;

/// What a call comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It is listed, or inside the mesh.
    Fine,
    /// An entry for it is missing.
    Missing {
        /// What the entry is for.
        wanted: Wanted,
        /// Why it is not allowed without.
        reason: &'static str,
    },
    /// It is not allowed, and no entry is proposed.
    Not(Unwanted),
}

/// What an entry would be for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// Whom.
    pub destination: Wish,
    /// On which port.
    pub port: u16,
    /// In which protocol.
    pub protocol: Protocol,
}

/// A name or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// A name, or `*.` and a name.
    Host(String),
    /// An address.
    Address(IpAddr),
}

/// A protocol of an entry's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Any HTTP.
    Http,
    /// Any TLS.
    Tls,
    /// Any bytes.
    Tcp,
}

impl Protocol {
    /// As Istio writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http => "HTTP",
            Protocol::Tls => "TLS",
            Protocol::Tcp => "TCP",
        }
    }
}

/// Why no entry is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unwanted {
    /// The deny list has it.
    DenyListed,
    /// `--exclude` has it.
    Excluded,
    /// It is no name.
    InvalidName,
    /// It is no ClientHello.
    InvalidClientHello,
    /// A link-local address, a metadata service, or the workload itself.
    LinkLocal,
    /// A name of the mesh.
    MeshName,
    /// The name is listed, the address is not.
    Unverified,
    /// The mesh closed it before its name could be read.
    ClosedByMesh,
}

impl Unwanted {
    /// The reason, for people.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Unwanted::DenyListed => "the deny list has it",
            Unwanted::Excluded => "excluded",
            Unwanted::InvalidName => "no name",
            Unwanted::InvalidClientHello => "no ClientHello that can be read",
            Unwanted::LinkLocal => "link-local, loopback or a cloud's metadata service",
            Unwanted::MeshName => "a name of the mesh: repair the client, or mesh.domains",
            Unwanted::Unverified => "the name is listed; add this address to its entry if it belongs to it",
            Unwanted::ClosedByMesh => {
                "closed by the mesh before its name could be read; set Istio's outboundTrafficPolicy to ALLOW_ANY"
            }
        }
    }
}

/// Judges a call by what is listed now or, without that, by what its line says.
///
/// # Errors
///
/// What would have to be known of it.
pub fn judge(call: &LoggedCall, current: Option<&Enforced<'_>>, now: i64) -> Result<Judgement, Skip> {
    let is_blocked = call.passage == Passage::DeniedByMesh;
    let reason = match current {
        Some(current) => match current.ruling(&call.call, now) {
            // None of its plugins sees it.
            None => return Ok(Judgement::Fine),
            Some(ruling) => match ruling.reason {
                Reason::Listed | Reason::MeshInternal | Reason::MeshRegistry => return Ok(Judgement::Fine),
                reason => reason.as_str(),
            },
        },
        None => match call.reason {
            Some(Reason::Listed | Reason::MeshInternal | Reason::MeshRegistry) => return Ok(Judgement::Fine),
            Some(reason) => reason.as_str(),
            None if is_blocked => Reason::MeshDenied.as_str(),
            None if call.passage == Passage::Denied => Reason::NotListed.as_str(),
            None if !call.has_verdict && call.call.route.route() == Route::Passthrough => "passthrough",
            None => return Ok(Judgement::Fine),
        },
    };
    if call.may_have_name {
        return if is_blocked { Ok(Judgement::Not(Unwanted::ClosedByMesh)) } else { Err(Skip::Unnamed) };
    }
    Ok(match (unwanted(call, reason), wanted(call)) {
        (Some(unwanted), _) => Judgement::Not(unwanted),
        (None, Some(wanted)) => Judgement::Missing { wanted, reason },
        (None, None) => return Err(Skip::NoDestination),
    })
}

fn unwanted(call: &LoggedCall, reason: &str) -> Option<Unwanted> {
    let is = |other: Reason| reason == other.as_str();
    let target = &call.call.target;
    if is(Reason::DenyListed) {
        return Some(Unwanted::DenyListed);
    }
    if is(Reason::InvalidName) || matches!(target, Target::Unnamed(Unnamed::InvalidName | Unnamed::Nameless)) {
        return Some(Unwanted::InvalidName);
    }
    if is(Reason::InvalidClientHello) || *target == Target::Unnamed(Unnamed::InvalidClientHello) {
        return Some(Unwanted::InvalidClientHello);
    }
    let literal = if let Target::Ip(ip) = target { Some(*ip) } else { None };
    // Whom a name leads to at the workload itself is nobody's but bare Envoy's, whose listener has an address of its own.
    let is_unnamed = !matches!(target, Target::Name(_));
    let is_near = |address: IpAddr| is_local(address) && (is_unnamed || !address.is_loopback());
    if [literal, call.call.address].into_iter().flatten().any(is_near) {
        return Some(Unwanted::LinkLocal);
    }
    if let Target::Name(name) = target {
        if METADATA_NAMES.iter().any(|metadata| is_within(name, metadata)) {
            return Some(Unwanted::LinkLocal);
        }
        if !name.as_str().contains('.') || MESH_DOMAINS.iter().any(|domain| is_within(name, domain)) {
            return Some(Unwanted::MeshName);
        }
    }
    is(Reason::UnverifiedDestination).then_some(Unwanted::Unverified)
}

/// Names that cloud providers have for their metadata services.
const METADATA_NAMES: [&str; 3] = ["metadata.google.internal", "metadata.goog", "localhost"];

/// What `mesh.domains` is by default, and its usual abbreviation.
const MESH_DOMAINS: [&str; 2] = ["cluster.local", "svc"];

fn is_within(name: &HostName<'_>, domain: &str) -> bool {
    HostName::from_config(domain).is_ok_and(|domain| name.is_within(&domain))
}

/// Metadata services that are not link-local: of AWS (IPv6), Alibaba Cloud and Azure.
const METADATA: [&str; 3] = ["fd00:ec2::254", "100.100.100.200", "168.63.129.16"];

fn is_local(address: IpAddr) -> bool {
    let is_near = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    };
    is_near
        || address.is_unspecified()
        || address.is_multicast()
        || METADATA.iter().any(|metadata| metadata.parse() == Ok(address))
}

fn wanted(call: &LoggedCall) -> Option<Wanted> {
    let asked = &call.call;
    let destination = match &asked.target {
        Target::Name(name) => Wish::Host(name.to_string()),
        Target::Ip(ip) => Wish::Address(*ip),
        Target::Unnamed(_) => Wish::Address(asked.address?),
    };
    let protocol = match (asked.protocol, &asked.target) {
        // Half a head or ClientHello may be anything in the end.
        (_, Target::Unnamed(Unnamed::NoClientData)) => Protocol::Tcp,
        (WireProtocol::Http | WireProtocol::Grpc, _) => Protocol::Http,
        (WireProtocol::Tls, _) => Protocol::Tls,
        (WireProtocol::Tcp, _) => Protocol::Tcp,
    };
    Some(Wanted { destination, port: asked.connect_port.or(asked.port)?, protocol })
}
