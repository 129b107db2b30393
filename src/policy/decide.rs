//! [`Policy::decide`]: deny list, registry by name, registry by address, route, addresses of the mesh.

use std::net::IpAddr;
use std::ops::ControlFlow;

use super::{Attributes, Counted, Decision, Destination, Enforcement, Mode, Policy, Reason, Target, Unnamed, Verdict};
use crate::mesh::{Route, RouteClass};
use crate::registry::{Entry, EntryId, PatternRef, Registry};

impl Policy {
    /// Decides.
    ///
    /// Any entry that permits the destination allows it; how specific it is only decides under which it is counted. When
    /// none does, the reason is the smallest repair of those that match.
    ///
    /// What cannot be known counts against the destination: an unknown port is not listed, an unknown route is external.
    pub fn decide<'a>(&'a self, destination: &'a Destination<'_>, attributes: &'a impl Attributes) -> Decision<'a> {
        let query = Query { destination, attributes, spoof_protection: false };
        if let Some((pattern, entry)) = query.deny_listed(&self.deny) {
            return Decision {
                verdict: self.denied(),
                reason: Reason::DenyListed,
                counted: Counted::DenyListed(pattern),
                entry: Some(entry),
            };
        }
        let query = Query { spoof_protection: self.spoof_protection, ..query };
        let found = query.listed(&self.registry);
        if let Some(Candidate { pattern, entry, .. }) = found.permitting {
            return Decision {
                verdict: Verdict::Allowed,
                reason: Reason::Listed,
                counted: Counted::Listed(pattern),
                entry: Some(entry),
            };
        }
        let route = attributes.route();
        let by_mesh = match self.mesh.classify(route) {
            RouteClass::Internal => Some((Reason::MeshInternal, Counted::Mesh)),
            RouteClass::Trusted(host) => Some((Reason::MeshRegistry, Counted::Service(host))),
            RouteClass::External if self.in_mesh_addresses(route, attributes) => {
                Some((Reason::MeshInternal, Counted::Mesh))
            }
            RouteClass::External => None,
        };
        if let Some((reason, counted)) = by_mesh {
            return Decision { verdict: Verdict::Allowed, reason, counted, entry: None };
        }
        let (reason, counted, entry) = match (found.misfit, found.closest) {
            (Some(misfit), Some(closest)) => (misfit.reason(), Counted::Listed(closest.pattern), Some(closest.entry)),
            _ => (query.unlisted_reason(), query.unlisted(), None),
        };
        if self.mode == Mode::AllowAny {
            let counted = if counted == Counted::Invalid { query.address_and_port() } else { counted };
            return Decision { verdict: Verdict::Allowed, reason: Reason::AllowAny, counted, entry };
        }
        Decision { verdict: self.denied(), reason, counted, entry }
    }

    fn denied(&self) -> Verdict {
        match self.enforcement {
            Enforcement::Enforce => Verdict::Denied,
            Enforcement::Report => Verdict::WouldDeny,
        }
    }

    /// Only where the client chose the address: elsewhere Envoy connects to another one.
    fn in_mesh_addresses(&self, route: Route<'_>, attributes: &impl Attributes) -> bool {
        self.mesh.has_addresses()
            && route == Route::Passthrough
            && attributes.address().is_some_and(|address| self.mesh.holds(address))
    }
}

/// How far an entry that matches is from permitting; the greater, the smaller the repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misfit {
    Port,
    Protocol,
    Expired,
    Unverified,
}

impl Misfit {
    fn reason(self) -> Reason {
        match self {
            Misfit::Port => Reason::PortNotListed,
            Misfit::Protocol => Reason::ProtocolNotListed,
            Misfit::Expired => Reason::Expired,
            Misfit::Unverified => Reason::UnverifiedDestination,
        }
    }
}

/// Whether an entry that a pattern led to permits the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Permits,
    Misses(Misfit),
    /// The pattern does not count for this destination.
    NoMatch,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    rank: usize,
    entry: EntryId,
    pattern: PatternRef,
}

/// What a registry says about one destination so far.
#[derive(Debug, Default)]
struct Found {
    /// The most specific entry that permits it.
    permitting: Option<Candidate>,
    /// The smallest repair of those that do not.
    misfit: Option<Misfit>,
    /// The most specific of those.
    closest: Option<Candidate>,
}

impl Found {
    fn add(&mut self, candidate: Candidate, fit: Fit) {
        let slot = match fit {
            Fit::NoMatch => return,
            Fit::Permits => &mut self.permitting,
            Fit::Misses(misfit) => {
                self.misfit = self.misfit.max(Some(misfit));
                &mut self.closest
            }
        };
        let better = slot.is_none_or(|other| (candidate.rank, candidate.entry) < (other.rank, other.entry));
        if better {
            *slot = Some(candidate);
        }
    }
}

/// Addresses rank behind every name, and ports that are open at any address behind every address.
const ADDRESS_RANK: usize = 1 << 16;
const OPEN_PORT_RANK: usize = 1 << 17;

struct Query<'a, A> {
    destination: &'a Destination<'a>,
    attributes: &'a A,
    spoof_protection: bool,
}

impl<'a, A: Attributes> Query<'a, A> {
    /// The deny list looks at names and at addresses, whatever else an entry has, and never at the route.
    fn deny_listed(&self, deny: &Registry) -> Option<(PatternRef, EntryId)> {
        if deny.is_empty() {
            return None;
        }
        let mut found = Found::default();
        if let Target::Name(name) = &self.destination.target
            && deny.has_hosts()
        {
            deny.visit_name(name, |pattern, rank, entry| {
                self.try_entry(deny, &mut found, pattern, rank, entry, |entry| self.deny_fit(deny, entry))
            });
        }
        if deny.has_addresses() {
            let literal = if let Target::Ip(ip) = self.destination.target { Some(ip) } else { None };
            for address in literal.into_iter().chain(self.attributes.address()) {
                if found.permitting.is_some() {
                    break;
                }
                for (rank, (pattern, entry)) in (ADDRESS_RANK..).zip(deny.around(address)) {
                    let flow =
                        self.try_entry(deny, &mut found, pattern, rank, entry, |entry| self.deny_fit(deny, entry));
                    if flow.is_break() {
                        break;
                    }
                }
            }
        }
        found.permitting.map(|candidate| (candidate.pattern, candidate.entry))
    }

    fn deny_fit(&self, deny: &Registry, entry: &Entry) -> Fit {
        let family = self.destination.protocol.family();
        let fits = !entry.has_ports()
            || self.families(deny, entry).is_some_and(|families| families.take(family) || families.has_tcp());
        if fits { Fit::Permits } else { Fit::NoMatch }
    }

    fn listed(&self, registry: &Registry) -> Found {
        let mut found = Found::default();
        if registry.is_empty() {
            return found;
        }
        let named = match &self.destination.target {
            Target::Name(name) => {
                registry.visit_name(name, |pattern, rank, entry| {
                    self.try_entry(registry, &mut found, pattern, rank, entry, |row| {
                        self.name_fit(registry, row, entry)
                    })
                });
                true
            }
            Target::Ip(ip) => {
                let verified = |fit: Fit| match fit {
                    Fit::Permits if self.is_spoofable() && self.attributes.address() != Some(*ip) => {
                        Fit::Misses(Misfit::Unverified)
                    }
                    fit => fit,
                };
                self.by_address(registry, &mut found, *ip, false, verified);
                false
            }
            Target::Unnamed(_) => false,
        };
        if found.permitting.is_some() || (named && !registry.decides_named_by_address()) {
            return found;
        }
        if registry.has_addresses()
            && let Some(address) = self.attributes.address()
            && self.destination.target != Target::Ip(address)
        {
            self.by_address(registry, &mut found, address, named, |fit| fit);
        }
        if found.permitting.is_none()
            && let Some(port) = self.attributes.port()
        {
            for (rank, (pattern, entry)) in (OPEN_PORT_RANK..).zip(registry.open_port(port)) {
                let flow =
                    self.try_entry(registry, &mut found, pattern, rank, entry, |row| self.time_fit(registry, row));
                if flow.is_break() {
                    break;
                }
            }
        }
        found
    }

    fn by_address(
        &self,
        registry: &Registry,
        found: &mut Found,
        address: IpAddr,
        named: bool,
        verified: impl Fn(Fit) -> Fit,
    ) {
        for (rank, (pattern, entry)) in (ADDRESS_RANK..).zip(registry.around(address)) {
            let flow = self.try_entry(registry, found, pattern, rank, entry, |row| {
                verified(self.address_fit(registry, row, named))
            });
            if flow.is_break() {
                break;
            }
        }
    }

    /// Breaks off once nothing better can follow.
    fn try_entry(
        &self,
        registry: &Registry,
        found: &mut Found,
        pattern: PatternRef,
        rank: usize,
        entry: EntryId,
        fit: impl FnOnce(&Entry) -> Fit,
    ) -> ControlFlow<()> {
        if found.permitting.is_some_and(|permitting| permitting.rank < rank) {
            return ControlFlow::Break(());
        }
        if let Some(row) = registry.entry(entry) {
            found.add(Candidate { rank, entry, pattern }, fit(row));
        }
        // Another glob of the same rank may stand in an earlier entry.
        if found.permitting.is_some() && !pattern.is_glob() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    /// An entry whose host matches the name.
    fn name_fit(&self, registry: &Registry, entry: &Entry, id: EntryId) -> Fit {
        if entry.has_ports() {
            match self.families(registry, entry) {
                None => return Fit::Misses(Misfit::Port),
                Some(families) if families.take(self.destination.protocol.family()) => {}
                // On a TCP port the name does not count.
                Some(families) if families.only_tcp() => return Fit::NoMatch,
                Some(_) => return Fit::Misses(Misfit::Protocol),
            }
        }
        match self.time_fit(registry, entry) {
            Fit::Permits if self.is_spoofable() && !self.is_address_of(registry, id) => Fit::Misses(Misfit::Unverified),
            fit => fit,
        }
    }

    /// An entry whose addresses hold the destination, which has a name of its own or not.
    fn address_fit(&self, registry: &Registry, entry: &Entry, named: bool) -> Fit {
        // An entry with hosts is for those hosts, save on its TCP ports.
        let only_tcp_counts = named && entry.has_hosts();
        if entry.has_ports() {
            match self.families(registry, entry) {
                Some(families) if families.has_tcp() => {}
                _ if only_tcp_counts => return Fit::NoMatch,
                None => return Fit::Misses(Misfit::Port),
                Some(families) if families.take(self.destination.protocol.family()) => {}
                Some(families) if families.take_any_by_address() => {}
                Some(_) => return Fit::Misses(Misfit::Protocol),
            }
        } else if only_tcp_counts {
            return Fit::NoMatch;
        }
        self.time_fit(registry, entry)
    }

    fn time_fit(&self, registry: &Registry, entry: &Entry) -> Fit {
        match registry.expires(entry) {
            Some(expires) if expires <= self.attributes.now() => Fit::Misses(Misfit::Expired),
            _ => Fit::Permits,
        }
    }

    fn families(&self, registry: &Registry, entry: &Entry) -> Option<crate::registry::Families> {
        registry.families(entry, self.attributes.port()?)
    }

    /// Whether Envoy would connect to whatever address the client chose, and the configuration asks to mind that.
    fn is_spoofable(&self) -> bool {
        self.spoof_protection && self.attributes.route() == Route::Passthrough
    }

    fn is_address_of(&self, registry: &Registry, entry: EntryId) -> bool {
        let has_addresses = registry.entry(entry).is_some_and(Entry::has_addresses);
        has_addresses && self.attributes.address().is_some_and(|address| registry.lists_address(entry, address))
    }

    fn unlisted_reason(&self) -> Reason {
        match self.destination.target {
            Target::Name(_) | Target::Ip(_) => Reason::NotListed,
            Target::Unnamed(Unnamed::InvalidName) => Reason::InvalidName,
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
            Target::Ip(ip) => Counted::Address(Some(*ip), self.attributes.port()),
            Target::Unnamed(Unnamed::InvalidName) => Counted::Invalid,
            Target::Unnamed(_) => self.address_and_port(),
        }
    }

    fn address_and_port(&self) -> Counted<'a> {
        Counted::Address(self.attributes.address(), self.attributes.port())
    }
}
