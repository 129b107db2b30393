//! [`Policy::decide`]: deny list, registry by name, registry by address, route, addresses of the mesh.
//! [`Policy::decide_unseen`] and [`Policy::decide_unrouted`]: the same for a connection of which less is known, where
//! what is still to come cannot change the answer.

use std::net::IpAddr;
use std::ops::ControlFlow;

use super::{
    Attributes, Counted, Decision, Destination, Enforcement, Mode, Policy, Reason, Target, Unnamed, Verdict,
    WireProtocol,
};
use crate::mesh::{Route, RouteClass};
use crate::name::HostName;
use crate::registry::{Entry, EntryId, Families, PatternRef, Registry};

impl Policy {
    /// Decides.
    ///
    /// Any entry that permits the destination allows it; how specific it is only decides under which it is counted. When
    /// none does, the reason is the smallest repair of those that match.
    ///
    /// What cannot be known counts against the destination: an unknown port is not listed, an unknown route is external.
    pub fn decide<'a>(&'a self, destination: &'a Destination<'_>, attributes: &'a dyn Attributes) -> Decision<'a> {
        if let Some(decision) = self.decide_denied(destination, attributes) {
            return decision;
        }
        let list = List::Registry { spoof_protection: self.spoof_protection };
        let mut search = Search::new(&self.registry, list, destination, attributes);
        search.registry();
        if let Some(candidate) = search.permitting {
            return listed(candidate);
        }
        let route = attributes.route();
        let class = self.mesh.classify(route);
        let by_mesh = match class {
            // A headless service is routed to whatever address the client chose.
            RouteClass::Internal if self.verifies_the_mesh() && !self.goes_into_the_mesh(attributes) => None,
            RouteClass::Internal => Some((Reason::MeshInternal, Counted::Mesh)),
            RouteClass::Trusted(host) => Some((Reason::MeshRegistry, Counted::Service(host))),
            // Only where the client chose the address: elsewhere Envoy connects to another one.
            RouteClass::External if route == Route::Passthrough && self.goes_into_the_mesh(attributes) => {
                Some((Reason::MeshInternal, Counted::Mesh))
            }
            RouteClass::External => None,
        };
        if let Some((reason, counted)) = by_mesh {
            return Decision { verdict: Verdict::Allowed, reason, counted, entry: None };
        }
        let (reason, counted, entry) = match (search.misfit, search.closest) {
            (Some(misfit), Some(closest)) => {
                (search.reason_of(misfit), Counted::Listed(closest.pattern), Some(closest.entry))
            }
            _ if class == RouteClass::Internal => (Reason::UnverifiedDestination, search.unlisted(), None),
            _ => (search.unlisted_reason(), search.unlisted(), None),
        };
        if self.mode == Mode::AllowAny {
            let counted = if counted == Counted::Invalid { search.address_and_port() } else { counted };
            return Decision { verdict: Verdict::Allowed, reason: Reason::AllowAny, counted, entry };
        }
        Decision { verdict: self.denied(), reason, counted, entry }
    }

    /// What the deny list says, which wins over all else; `None` if that is nothing.
    pub fn decide_denied<'a>(
        &'a self,
        destination: &'a Destination<'_>,
        attributes: &'a dyn Attributes,
    ) -> Option<Decision<'a>> {
        let mut search = Search::new(&self.deny, List::Deny, destination, attributes);
        search.deny_list();
        if let Some(candidate) = search.permitting {
            return Some(self.deny_listed(candidate));
        }
        // It may be a denied name that cannot be read here, but by Envoy, which routes by it, or by the server.
        let may_hide_a_name =
            matches!(destination.target, Target::Unnamed(Unnamed::InvalidName | Unnamed::InvalidClientHello));
        (self.deny.has_hosts() && may_hide_a_name).then(|| Decision {
            verdict: self.denied(),
            reason: search.unlisted_reason(),
            counted: search.unlisted(),
            entry: None,
        })
    }

    /// Decides a connection of which no byte was seen, if none could change the answer: it goes by address and port.
    ///
    /// `None` where the first bytes count: the deny list has hosts, an entry that has the address is for names or for one
    /// protocol, or no entry has it.
    pub fn decide_unseen<'a>(&'a self, attributes: &'a dyn Attributes) -> Option<Decision<'a>> {
        let denied = |unseen: &'static Destination<'static>| {
            let mut search = Search::unseen(&self.deny, List::Deny, unseen, attributes);
            search.deny_list();
            search.permitting
        };
        if let Some(candidate) = denied(&UNSEEN) {
            return Some(self.deny_listed(candidate));
        }
        if self.deny.has_hosts() || denied(&UNSEEN_HTTP).is_some() || denied(&UNSEEN_TLS).is_some() {
            return None;
        }
        let list = List::Registry { spoof_protection: self.spoof_protection };
        let mut search = Search::unseen(&self.registry, list, &UNSEEN, attributes);
        search.registry();
        if let Some(candidate) = search.permitting {
            return Some(listed(candidate));
        }
        // Elsewhere the route tells what is inside: a service's own address may stand for a host outside, or a gateway.
        let is_internal = self.goes_into_the_mesh(attributes) && attributes.route() == Route::Passthrough;
        is_internal.then_some(Decision {
            verdict: Verdict::Allowed,
            reason: Reason::MeshInternal,
            counted: Counted::Mesh,
            entry: None,
        })
    }

    /// Decides a connection whose route may be [`Route::Unknown`]; `None` where the answer depends on it.
    pub fn decide_unrouted<'a>(
        &'a self,
        destination: &'a Destination<'_>,
        attributes: &'a dyn Attributes,
    ) -> Option<Decision<'a>> {
        let decision = self.decide(destination, attributes);
        let is_final =
            attributes.route() != Route::Unknown || matches!(decision.reason, Reason::Listed | Reason::DenyListed);
        is_final.then_some(decision)
    }

    fn deny_listed(&self, Candidate { pattern, entry, .. }: Candidate) -> Decision<'static> {
        Decision {
            verdict: self.denied(),
            reason: Reason::DenyListed,
            counted: Counted::DenyListed(pattern),
            entry: Some(entry),
        }
    }

    fn denied(&self) -> Verdict {
        match self.enforcement {
            Enforcement::Enforce => Verdict::Denied,
            Enforcement::Report => Verdict::WouldDeny,
        }
    }

    /// Whether a request to a service inside the mesh must be sent to an address inside it.
    fn verifies_the_mesh(&self) -> bool {
        self.spoof_protection && self.mesh.has_addresses()
    }

    fn goes_into_the_mesh(&self, attributes: &dyn Attributes) -> bool {
        self.mesh.has_addresses() && attributes.address().is_some_and(|address| self.mesh.holds(address))
    }
}

fn listed(Candidate { pattern, entry, .. }: Candidate) -> Decision<'static> {
    Decision {
        verdict: Verdict::Allowed,
        reason: Reason::Listed,
        counted: Counted::Listed(pattern),
        entry: Some(entry),
    }
}

/// A connection of which no byte was seen. What fits this fits any bytes.
static UNSEEN: Destination<'static> = unseen(WireProtocol::Tcp);
static UNSEEN_HTTP: Destination<'static> = unseen(WireProtocol::Http);
static UNSEEN_TLS: Destination<'static> = unseen(WireProtocol::Tls);

const fn unseen(protocol: WireProtocol) -> Destination<'static> {
    Destination { protocol, target: Target::Unnamed(Unnamed::Opaque) }
}

/// How far an entry that matches is from permitting; the greater, the smaller the repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misfit {
    Port,
    Protocol,
    Expired,
    Unverified,
}

/// Whether an entry that a pattern led to permits the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Permits,
    Misses(Misfit),
    /// The pattern does not count for this destination.
    NoMatch,
}

/// The lesser is the more specific; then comes the earlier entry, then the earlier pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: usize,
    entry: EntryId,
    pattern: PatternRef,
}

/// Addresses rank behind every name: first the one that stands in place of a name, then the one that the client connected
/// to. Ports that are open at any address rank behind every address.
const LITERAL_RANK: usize = 1 << 28;
const ADDRESS_RANK: usize = 2 << 28;
const OPEN_PORT_RANK: usize = 3 << 28;

/// Which list is searched.
#[derive(Clone, Copy, Debug)]
enum List {
    Registry {
        spoof_protection: bool,
    },
    /// Looks at names and at addresses, whatever else an entry has, and never at the route.
    Deny,
}

/// What led to an entry.
#[derive(Clone, Copy, Debug)]
enum Via {
    /// A host that matches the name.
    Name,
    /// A prefix around the IP address that stands in place of a name.
    Literal(IpAddr),
    /// A prefix around the address that the client connected to.
    Address,
    /// A TCP port that is open at any address.
    OpenPort,
}

/// What a list says about one destination so far.
struct Search<'a> {
    entries: &'a Registry,
    list: List,
    destination: &'a Destination<'a>,
    attributes: &'a dyn Attributes,
    /// Whether the destination has a name, or may turn out to have one.
    may_have_name: bool,
    /// The most specific entry that permits it.
    permitting: Option<Candidate>,
    /// The smallest repair of those that do not.
    misfit: Option<Misfit>,
    /// The most specific of those.
    closest: Option<Candidate>,
}

impl<'a> Search<'a> {
    fn new(
        entries: &'a Registry,
        list: List,
        destination: &'a Destination<'a>,
        attributes: &'a dyn Attributes,
    ) -> Self {
        let may_have_name = matches!(destination.target, Target::Name(_));
        Search { entries, list, destination, attributes, may_have_name, permitting: None, misfit: None, closest: None }
    }

    fn unseen(
        entries: &'a Registry,
        list: List,
        unseen: &'static Destination<'static>,
        attributes: &'a dyn Attributes,
    ) -> Self {
        Search { may_have_name: true, ..Search::new(entries, list, unseen, attributes) }
    }

    fn deny_list(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        match &self.destination.target {
            Target::Name(name) if self.entries.has_hosts() => self.by_name(name),
            Target::Ip(ip) => self.by_address(*ip, Via::Literal(*ip)),
            _ => {}
        }
        self.by_destination_address();
    }

    fn registry(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        match &self.destination.target {
            Target::Name(name) => {
                self.by_name(name);
                if !self.entries.decides_named_by_address() {
                    return;
                }
            }
            Target::Ip(ip) => self.by_address(*ip, Via::Literal(*ip)),
            Target::Unnamed(_) => {}
        }
        self.by_destination_address();
        self.by_open_port();
    }

    fn by_name(&mut self, name: &HostName<'_>) {
        self.entries.visit_name(name, |pattern, rank, entry| self.try_entry(pattern, rank, entry, Via::Name));
    }

    fn by_destination_address(&mut self) {
        if self.permitting.is_none()
            && self.entries.has_addresses()
            && let Some(address) = self.attributes.address()
        {
            self.by_address(address, Via::Address);
        }
    }

    fn by_address(&mut self, address: IpAddr, via: Via) {
        let first_rank = if matches!(via, Via::Literal(_)) { LITERAL_RANK } else { ADDRESS_RANK };
        for (rank, (pattern, entry)) in (first_rank..).zip(self.entries.around(address)) {
            if self.try_entry(pattern, rank, entry, via).is_break() {
                return;
            }
        }
    }

    fn by_open_port(&mut self) {
        if self.permitting.is_none()
            && self.entries.has_open_ports()
            && let Some(port) = self.attributes.port()
        {
            for (rank, (pattern, entry)) in (OPEN_PORT_RANK..).zip(self.entries.open_port(port)) {
                if self.try_entry(pattern, rank, entry, Via::OpenPort).is_break() {
                    return;
                }
            }
        }
    }

    /// Breaks off once nothing better can follow.
    fn try_entry(&mut self, pattern: PatternRef, rank: usize, id: EntryId, via: Via) -> ControlFlow<()> {
        if self.permitting.is_some_and(|permitting| permitting.rank < rank) {
            return ControlFlow::Break(());
        }
        let Some(entry) = self.entries.entry(id) else {
            return ControlFlow::Continue(());
        };
        let slot = match self.fit(entry, id, via) {
            Fit::NoMatch => return ControlFlow::Continue(()),
            Fit::Permits => &mut self.permitting,
            Fit::Misses(misfit) => {
                self.misfit = self.misfit.max(Some(misfit));
                &mut self.closest
            }
        };
        let candidate = Candidate { rank, entry: id, pattern };
        if slot.is_none_or(|other| candidate < other) {
            *slot = Some(candidate);
        }
        // Another glob of the same rank may stand in an earlier entry.
        if self.permitting.is_some() && !pattern.is_glob() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn fit(&self, entry: &Entry, id: EntryId, via: Via) -> Fit {
        let List::Registry { spoof_protection } = self.list else {
            return self.deny_fit(entry, via);
        };
        let fit = match via {
            Via::Address | Via::OpenPort if self.goes_elsewhere() => Fit::NoMatch,
            Via::Name => self.name_fit(entry),
            Via::Literal(_) | Via::Address => self.address_fit(entry, via),
            Via::OpenPort => self.time_fit(entry),
        };
        let is_spoofable = fit == Fit::Permits && spoof_protection && self.goes_where_the_client_says();
        if is_spoofable && !self.is_verified(entry, id, via) { Fit::Misses(Misfit::Unverified) } else { fit }
    }

    /// Whether what led to an entry also vouches for the address and port that the client chose.
    fn is_verified(&self, entry: &Entry, id: EntryId, via: Via) -> bool {
        let address = self.attributes.address();
        let has_port = || !entry.has_ports() || self.families(entry, Via::Address).is_some();
        match via {
            Via::Name => address.is_some_and(|address| self.entries.lists_address(id, address)) && has_port(),
            Via::Literal(ip) => address == Some(ip) && has_port(),
            Via::Address => true,
            Via::OpenPort => false,
        }
    }

    fn deny_fit(&self, entry: &Entry, via: Via) -> Fit {
        let family = self.destination.protocol.family();
        let has = |port: Option<u16>| match port {
            Some(port) => {
                let families = self.entries.families(entry, port);
                families.is_some_and(|families| families.take(family) || families.has_tcp())
            }
            // What cannot be known counts against the destination.
            None => true,
        };
        // A name is denied on the connection's port, too: whoever gets a CONNECT need not do as it says.
        let fits = !entry.has_ports() || has(self.port(via)) || has(self.attributes.port());
        if fits { Fit::Permits } else { Fit::NoMatch }
    }

    /// An entry whose host matches the name.
    fn name_fit(&self, entry: &Entry) -> Fit {
        if entry.has_ports() {
            match self.families(entry, Via::Name) {
                None => return Fit::Misses(Misfit::Port),
                Some(families) if families.take(self.destination.protocol.family()) => {}
                // On a TCP port the name does not count.
                Some(families) if families.only_tcp() => return Fit::NoMatch,
                Some(_) => return Fit::Misses(Misfit::Protocol),
            }
        }
        self.time_fit(entry)
    }

    /// An entry whose addresses hold the destination.
    fn address_fit(&self, entry: &Entry, via: Via) -> Fit {
        // An entry with hosts is for those hosts, save on its TCP ports.
        let only_tcp_counts = entry.has_hosts() && self.may_have_name;
        if entry.has_ports() {
            match self.families(entry, via) {
                Some(families) if families.has_tcp() => {}
                _ if only_tcp_counts => return Fit::NoMatch,
                None => return Fit::Misses(Misfit::Port),
                Some(families) if families.take(self.destination.protocol.family()) => {}
                Some(_) => return Fit::Misses(Misfit::Protocol),
            }
        } else if only_tcp_counts {
            return Fit::NoMatch;
        }
        self.time_fit(entry)
    }

    fn time_fit(&self, entry: &Entry) -> Fit {
        match self.entries.expires(entry) {
            Some(expires) if expires <= self.attributes.now() => Fit::Misses(Misfit::Expired),
            _ => Fit::Permits,
        }
    }

    /// The port that counts for what led to an entry.
    fn port(&self, via: Via) -> Option<u16> {
        match via {
            Via::Name | Via::Literal(_) => self.port_of_name(),
            Via::Address | Via::OpenPort => self.attributes.port(),
        }
    }

    fn port_of_name(&self) -> Option<u16> {
        self.attributes.connect_port().or_else(|| self.attributes.port())
    }

    fn families(&self, entry: &Entry, via: Via) -> Option<Families> {
        self.entries.families(entry, self.port(via)?)
    }

    /// Whether Envoy would, or may, connect to whatever address the client chose.
    fn goes_where_the_client_says(&self) -> bool {
        matches!(self.attributes.route(), Route::Passthrough | Route::Unknown)
    }

    /// Whether Envoy would, or may, send it to the service that its Host or SNI names, and not to the address that the
    /// client connected to. What that address is then says nothing.
    fn goes_elsewhere(&self) -> bool {
        self.attributes.is_routed_by_name()
            && !matches!(self.destination.target, Target::Ip(_))
            && matches!(self.attributes.route(), Route::Service(_) | Route::Unknown)
    }

    fn reason_of(&self, misfit: Misfit) -> Reason {
        match misfit {
            Misfit::Port => Reason::PortNotListed,
            // Of what was not said nobody knows the protocol.
            Misfit::Protocol if self.destination.target == Target::Unnamed(Unnamed::NoClientData) => {
                Reason::NoClientData
            }
            Misfit::Protocol => Reason::ProtocolNotListed,
            Misfit::Expired => Reason::Expired,
            Misfit::Unverified => Reason::UnverifiedDestination,
        }
    }

    fn unlisted_reason(&self) -> Reason {
        match self.destination.target {
            Target::Name(_) | Target::Ip(_) => Reason::NotListed,
            Target::Unnamed(Unnamed::InvalidName | Unnamed::Nameless) => Reason::InvalidName,
            Target::Unnamed(Unnamed::NoSni) => Reason::NoSni,
            Target::Unnamed(Unnamed::InvalidClientHello) => Reason::InvalidClientHello,
            Target::Unnamed(Unnamed::NoClientData) => Reason::NoClientData,
            Target::Unnamed(Unnamed::ServerFirst) => Reason::ServerFirst,
            Target::Unnamed(Unnamed::Opaque) => Reason::NotListed,
        }
    }

    fn unlisted(&self) -> Counted<'a> {
        match &self.destination.target {
            Target::Name(name) => Counted::Name(name.as_str()),
            Target::Ip(ip) => Counted::Address(Some(*ip), self.port_of_name()),
            Target::Unnamed(Unnamed::InvalidName | Unnamed::Nameless) => Counted::Invalid,
            Target::Unnamed(_) => self.address_and_port(),
        }
    }

    fn address_and_port(&self) -> Counted<'a> {
        Counted::Address(self.attributes.address(), self.attributes.port())
    }
}
