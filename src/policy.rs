//! The decision: what a request or connection asks for, and whether it may have it.
//!
//! [`Policy::decide`] is pure. It takes what the caller has read off the wire and, through [`Attributes`], what Envoy
//! knows; it asks for the latter only when the answer depends on it, because each question costs a host call. It never
//! reads a clock, logs or counts.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::mesh::{Mesh, Route};
use crate::name::{Host, HostName, InvalidName};
use crate::registry::{EntryId, Family, PatternRef, Registry};

mod decide;

/// What one sidecar enforces: a configuration after its overrides are applied.
#[derive(Debug)]
pub struct Policy {
    pub(crate) mode: Mode,
    pub(crate) enforcement: Enforcement,
    pub(crate) registry: Registry,
    pub(crate) deny: Registry,
    pub(crate) mesh: Mesh,
    pub(crate) spoof_protection: bool,
    pub(crate) deny_message: String,
    pub(crate) inspection_timeout: Duration,
    pub(crate) metrics: MetricsOptions,
}

/// `outboundTrafficPolicy.mode`, with Istio's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Only what is registered is allowed.
    #[default]
    RegistryOnly,
    /// All is allowed but what the deny list has.
    AllowAny,
}

/// `enforcement`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// What is denied does not pass.
    #[default]
    Enforce,
    /// All passes; what would be denied is counted and logged.
    Report,
}

/// The `metrics` part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsOptions {
    /// How many distinct hosts that no entry matches get a metric label of their own, in each worker's VM.
    pub unlisted_hosts: u32,
    /// Whether responses are counted and timed.
    pub responses: bool,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        MetricsOptions { unlisted_hosts: 100, responses: false }
    }
}

/// What one request or connection asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// What the bytes are.
    pub protocol: WireProtocol,
    /// Whom they name.
    pub target: Target<'a>,
}

/// What the bytes of a request or connection are; the label `egress_protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireProtocol {
    /// HTTP/1 or HTTP/2, whether Envoy or the filter recognised it.
    Http,
    /// A gRPC request.
    Grpc,
    /// TLS.
    Tls,
    /// Anything else, or bytes that were not looked at.
    Tcp,
}

impl WireProtocol {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            WireProtocol::Http => "http",
            WireProtocol::Grpc => "grpc",
            WireProtocol::Tls => "tls",
            WireProtocol::Tcp => "tcp",
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            WireProtocol::Http | WireProtocol::Grpc => Family::Http,
            WireProtocol::Tls => Family::Tls,
            WireProtocol::Tcp => Family::Tcp,
        }
    }
}

/// Whom a request or connection names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A DNS name, from Host, `:authority` or SNI.
    Name(HostName<'a>),
    /// An IP address in place of a name.
    Ip(IpAddr),
    /// Nobody: only the address that the connection was made to can allow it.
    Unnamed(Unnamed),
}

impl Target<'_> {
    /// The same target, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Target<'static> {
        match self {
            Target::Name(name) => Target::Name(name.into_owned()),
            Target::Ip(ip) => Target::Ip(ip),
            Target::Unnamed(unnamed) => Target::Unnamed(unnamed),
        }
    }
}

impl<'a> From<Result<Host<'a>, InvalidName>> for Target<'a> {
    fn from(host: Result<Host<'a>, InvalidName>) -> Self {
        match host {
            Ok(Host::Name(name)) => Target::Name(name),
            Ok(Host::Ip(ip)) => Target::Ip(ip),
            Err(InvalidName::Empty) => Target::Unnamed(Unnamed::Nameless),
            Err(_) => Target::Unnamed(Unnamed::InvalidName),
        }
    }
}

/// Why a request or connection names nobody; for an address that is not listed, this is the reason of the denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// Host or SNI is neither a DNS name nor an IP address; it may be a spelling of a name.
    InvalidName,
    /// Host is absent or empty, or SNI is an IP address: no spelling of a name.
    Nameless,
    /// TLS without SNI.
    NoSni,
    /// TLS whose ClientHello does not parse.
    InvalidClientHello,
    /// The client said too little for too long.
    NoClientData,
    /// The server spoke first.
    ServerFirst,
    /// The bytes have no name in them.
    Opaque,
}

/// What Envoy knows about a request or connection. Each is asked at most when a decision depends on it.
pub trait Attributes {
    /// The address that the client connected to, before any redirection.
    fn address(&self) -> Option<IpAddr>;
    /// The port that the client connected to.
    fn port(&self) -> Option<u16>;
    /// The port in the authority of a CONNECT request, where it has one. With the name it counts in place of the
    /// connection's: that is where the request asks to be taken. With the address the connection's counts.
    fn connect_port(&self) -> Option<u16>;
    /// Where Envoy would send it.
    fn route(&self) -> Route<'_>;
    /// Whether Envoy chose that route by the name: always for a request, for a connection where a `tls_inspector` read
    /// its SNI. Otherwise the route goes by address and port.
    fn is_routed_by_name(&self) -> bool;
    /// The time, in Unix seconds.
    fn now(&self) -> i64;
}

/// [`Attributes`] that are known beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownAttributes<'a> {
    /// See [`Attributes::address`].
    pub address: Option<IpAddr>,
    /// See [`Attributes::port`].
    pub port: Option<u16>,
    /// See [`Attributes::connect_port`].
    pub connect_port: Option<u16>,
    /// See [`Attributes::route`].
    pub route: Route<'a>,
    /// See [`Attributes::is_routed_by_name`].
    pub is_routed_by_name: bool,
    /// See [`Attributes::now`].
    pub now: i64,
}

impl Attributes for KnownAttributes<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.address.map(|ip| ip.to_canonical())
    }

    fn port(&self) -> Option<u16> {
        self.port
    }

    fn connect_port(&self) -> Option<u16> {
        self.connect_port
    }

    fn route(&self) -> Route<'_> {
        self.route
    }

    fn is_routed_by_name(&self) -> bool {
        self.is_routed_by_name
    }

    fn now(&self) -> i64 {
        self.now
    }
}

/// What is done with a request or connection; the label `egress_verdict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It passes.
    Allowed,
    /// It does not pass.
    Denied,
    /// It passes because of REPORT, and would not under ENFORCE.
    WouldDeny,
    /// It ended before it could be decided.
    Undecided,
}

impl Verdict {
    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Denied => "denied",
            Verdict::WouldDeny => "would_deny",
            Verdict::Undecided => "undecided",
        }
    }
}

/// Why; the label `egress_reason`. The words are the same in metrics, logs, responses and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An entry matches.
    Listed,
    /// The route's host, or the address, is inside the mesh.
    MeshInternal,
    /// Istio routes it to a service that it knows, and `mesh.trustRegistry` is on.
    MeshRegistry,
    /// Nothing matches, and the mode is `ALLOW_ANY`.
    AllowAny,
    /// Nothing matches.
    NotListed,
    /// An entry matches the name or address, none of them this port.
    PortNotListed,
    /// Name and port match, but the entry says HTTP or TLS and the bytes are something else.
    ProtocolNotListed,
    /// The only entries that match have expired.
    Expired,
    /// The deny list has it.
    DenyListed,
    /// TLS without SNI, to an address that is not listed.
    NoSni,
    /// Host or SNI is empty, or no DNS name and no IP address.
    InvalidName,
    /// A TLS record or ClientHello does not parse, or is longer than 64 KiB.
    InvalidClientHello,
    /// Spoof protection is on, and Envoy may send it to an address that the client chose and no entry lists.
    UnverifiedDestination,
    /// An address that is not listed, and the client did not say enough to be named.
    NoClientData,
    /// An address that is not listed, and the server spoke first.
    ServerFirst,
    /// Envoy had no way out and closed the connection before a name could be read.
    MeshDenied,
    /// The client or the upstream went away before the verdict.
    ClosedEarly,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 17] = [
        Reason::Listed,
        Reason::MeshInternal,
        Reason::MeshRegistry,
        Reason::AllowAny,
        Reason::NotListed,
        Reason::PortNotListed,
        Reason::ProtocolNotListed,
        Reason::Expired,
        Reason::DenyListed,
        Reason::NoSni,
        Reason::InvalidName,
        Reason::InvalidClientHello,
        Reason::UnverifiedDestination,
        Reason::NoClientData,
        Reason::ServerFirst,
        Reason::MeshDenied,
        Reason::ClosedEarly,
    ];

    /// The label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Listed => "listed",
            Reason::MeshInternal => "mesh_internal",
            Reason::MeshRegistry => "mesh_registry",
            Reason::AllowAny => "allow_any",
            Reason::NotListed => "not_listed",
            Reason::PortNotListed => "port_not_listed",
            Reason::ProtocolNotListed => "protocol_not_listed",
            Reason::Expired => "expired",
            Reason::DenyListed => "deny_listed",
            Reason::NoSni => "no_sni",
            Reason::InvalidName => "invalid_name",
            Reason::InvalidClientHello => "invalid_client_hello",
            Reason::UnverifiedDestination => "unverified_destination",
            Reason::NoClientData => "no_client_data",
            Reason::ServerFirst => "server_first",
            Reason::MeshDenied => "mesh_denied",
            Reason::ClosedEarly => "closed_early",
        }
    }

    /// What a person who was denied is told.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Reason::Listed => "the registry lists it",
            Reason::MeshInternal => "it is inside the mesh",
            Reason::MeshRegistry => "the mesh has a service for it",
            Reason::AllowAny => "everything is allowed",
            Reason::NotListed => "no registry entry lists it",
            Reason::PortNotListed => "the registry lists it, but not on this port",
            Reason::ProtocolNotListed => "the registry lists it on this port, but for another protocol",
            Reason::Expired => "its registry entry has expired",
            Reason::DenyListed => "the deny list has it",
            Reason::NoSni => "the TLS client sent no server name, and the registry does not list the address",
            Reason::InvalidName => "the requested host is neither a DNS name nor an IP address",
            Reason::InvalidClientHello => "the TLS ClientHello cannot be read",
            Reason::UnverifiedDestination => {
                "the registry lists the name, but not the address that the client connected to"
            }
            Reason::NoClientData => "the client did not say whom it wants, and the registry does not list the address",
            Reason::ServerFirst => "the server spoke first, and the registry does not list the address",
            Reason::MeshDenied => "the mesh has no way out for it",
            Reason::ClosedEarly => "it ended before it was decided",
        }
    }
}

/// Verdict, reason, and what it is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What to do.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The label `egress_host`.
    pub counted: Counted<'a>,
    /// The entry that decided, of the registry or, for [`Reason::DenyListed`], of the deny list.
    pub entry: Option<EntryId>,
}

impl Decision<'_> {
    /// Whether the request or connection does not pass.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.verdict == Verdict::Denied
    }
}

/// What a decision is counted under; [`Policy::host_label`] writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted<'a> {
    /// A pattern or prefix of the registry.
    Listed(PatternRef),
    /// A pattern or prefix of the deny list.
    DenyListed(PatternRef),
    /// The mesh as a whole.
    Mesh,
    /// The host of a service that Istio knows.
    Service(&'a str),
    /// A host that is no name. What the client sent is not repeated.
    Invalid,
    /// The name that was asked for.
    Name(&'a str),
    /// The address and port that were asked for, as far as Envoy knows them.
    Address(Option<IpAddr>, Option<u16>),
}

impl Counted<'_> {
    /// Whether clients can make up any number of these.
    #[must_use]
    pub fn is_unbounded(&self) -> bool {
        matches!(self, Counted::Name(_) | Counted::Address(..))
    }
}

impl Policy {
    /// The host label of a decision: a pattern in normal form, `mesh`, `invalid`, a name or `ip:port`.
    pub fn host_label(&self, counted: Counted<'_>) -> impl fmt::Display {
        fmt::from_fn(move |f| match counted {
            Counted::Listed(pattern) => write!(f, "{}", self.registry.pattern(pattern)),
            Counted::DenyListed(pattern) => write!(f, "{}", self.deny.pattern(pattern)),
            Counted::Mesh => f.write_str("mesh"),
            Counted::Service(host) => f.write_str(host),
            Counted::Invalid => f.write_str("invalid"),
            Counted::Name(name) => f.write_str(name),
            Counted::Address(None, _) => f.write_str("unknown"),
            Counted::Address(Some(ip), None) => write!(f, "{ip}"),
            Counted::Address(Some(IpAddr::V4(ip)), Some(port)) => write!(f, "{ip}:{port}"),
            Counted::Address(Some(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
        })
    }

    /// What was denied, why, and what to do, in one line: `a.com:80: no registry entry lists it (not_listed). Ask for it`.
    pub fn denial(&self, destination: &Destination<'_>, port: Option<u16>, reason: Reason) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            match (&destination.target, port) {
                (Target::Name(name), Some(port)) => write!(f, "{name}:{port}: ")?,
                (Target::Name(name), None) => write!(f, "{name}: ")?,
                (Target::Ip(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}: ")?,
                (Target::Ip(ip), Some(port)) => write!(f, "{ip}:{port}: ")?,
                (Target::Ip(ip), None) => write!(f, "{ip}: ")?,
                (Target::Unnamed(_), _) => {}
            }
            write!(f, "{} ({})", reason.explanation(), reason.as_str())?;
            if self.deny_message.is_empty() { Ok(()) } else { write!(f, ". {}", self.deny_message) }
        })
    }

    /// What workloads may reach.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What they may not.
    #[must_use]
    pub fn deny(&self) -> &Registry {
        &self.deny
    }

    /// What is inside the mesh.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Whether an address that the client chose must be listed with the name that it goes by.
    #[must_use]
    pub fn spoof_protection(&self) -> bool {
        self.spoof_protection
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The enforcement.
    #[must_use]
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// How long a connection may be held before it is decided without its client's first bytes.
    #[must_use]
    pub fn inspection_timeout(&self) -> Duration {
        self.inspection_timeout
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> MetricsOptions {
        self.metrics
    }
}

/// The default of `tcp.inspectionTimeout`.
pub(crate) const INSPECTION_TIMEOUT: Duration = Duration::from_secs(5);

impl Default for Policy {
    /// What an empty configuration means: nothing is listed, and what is not listed is denied.
    fn default() -> Self {
        Policy {
            mode: Mode::default(),
            enforcement: Enforcement::default(),
            registry: Registry::default(),
            deny: Registry::default(),
            mesh: Mesh::default(),
            spoof_protection: false,
            deny_message: String::new(),
            inspection_timeout: INSPECTION_TIMEOUT,
            metrics: MetricsOptions::default(),
        }
    }
}
