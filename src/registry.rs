//! The registry: which entries list a host, an address or a port.
//!
//! A look-up answers "which patterns match, and in which entries", the most specific first. What that means for a
//! request, and what counts as the best of several answers, is [`crate::policy`]'s.
//!
//! Built for 50,000 hosts and more in every sidecar: names in one arena, four bytes of hash table and twelve of node for
//! each, no allocation in a look-up, and no scan over entries, patterns or prefixes anywhere.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;
use std::ops::ControlFlow;

use crate::address::{Cidr, CidrTable};
use crate::name::HostName;
use crate::pattern::HostPattern;

mod globs;
mod hosts;
mod owners;
mod pages;
mod ports;

use hosts::Hosts;
use pages::Pages;
pub(crate) use ports::Families;
use ports::PortSets;
pub use ports::{Family, InvalidProtocol, Protocol};

/// The entries that workloads may reach, or that they may not.
#[derive(Debug, Default)]
pub struct Registry {
    hosts: Hosts,
    addresses: CidrTable,
    ports: PortSets,
    entries: Pages<Entry, 12>,
    /// Unix seconds.
    expiries: Vec<i64>,
    /// Ports that entries with hosts but without addresses open at any address, with the entry, sorted.
    open_ports: Vec<(u16, u32)>,
    named_by_address: bool,
}

/// One entry, in the shape of an Istio `ServiceEntry`.
#[derive(Debug)]
pub(crate) struct Entry {
    ports: ports::PortSet,
    /// One more than the position in `expiries`; 0 is never.
    expires: u32,
    /// The first host; `None` for an entry of addresses only.
    host: Option<PatternRef>,
    /// One more than the position of the name in the texts; 0 is none.
    name: u32,
    has_addresses: bool,
}

/// The number of an entry, in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId(u32);

impl EntryId {
    /// 0 for the first.
    #[must_use]
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// A pattern or prefix of one registry; small and cheap to compare, so it can be the key of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PatternRef(std::num::NonZeroU32);

#[derive(Clone, Copy, Debug)]
enum PatternKind {
    Exact(u32),
    Suffix(u32),
    Glob(u32),
    Address(u32),
}

impl PatternRef {
    const KIND_BITS: u32 = 30;

    fn new(kind: u32, position: u32) -> Self {
        let position = position & ((1 << Self::KIND_BITS) - 1);
        // Never zero: one is added, and positions are below 2^29.
        PatternRef(std::num::NonZeroU32::MIN.saturating_add(kind << Self::KIND_BITS | position))
    }

    fn exact(node: u32) -> Self {
        Self::new(0, node)
    }

    fn suffix(node: u32) -> Self {
        Self::new(1, node)
    }

    fn glob(glob: u32) -> Self {
        Self::new(2, glob)
    }

    fn address(row: u32) -> Self {
        Self::new(3, row)
    }

    fn kind(self) -> PatternKind {
        let number = self.0.get() - 1;
        let position = number & ((1 << Self::KIND_BITS) - 1);
        match number >> Self::KIND_BITS {
            0 => PatternKind::Exact(position),
            1 => PatternKind::Suffix(position),
            2 => PatternKind::Glob(position),
            _ => PatternKind::Address(position),
        }
    }

    /// Whether several such patterns can match at the same rank.
    pub(crate) fn is_glob(self) -> bool {
        matches!(self.kind(), PatternKind::Glob(_))
    }

    /// A number that no other pattern of the same registry has.
    #[must_use]
    pub fn key(self) -> u32 {
        self.0.get()
    }
}

impl Registry {
    /// Calls `visit` with the patterns that match `name`, most specific first, and each entry of each pattern.
    ///
    /// Specific is: exact; then by the length of the literal suffix; globs before the wildcard of the same suffix. What
    /// is equally specific has the same rank. Globs of one rank come in no particular order; all else comes in the order
    /// of the configuration.
    pub(crate) fn visit_name(
        &self,
        name: &HostName<'_>,
        mut visit: impl FnMut(PatternRef, usize, EntryId) -> ControlFlow<()>,
    ) {
        let _ = self.hosts.visit(name, |pattern, rank, entry| visit(pattern, rank, EntryId(entry)));
    }

    /// The prefixes around `address` and the entries that list them: the longest prefix first, then the earlier entry.
    pub(crate) fn around(&self, address: IpAddr) -> impl Iterator<Item = (PatternRef, EntryId)> {
        self.addresses
            .around(address)
            .flat_map(|(row, entries)| entries.iter().map(move |entry| (PatternRef::address(row), EntryId(*entry))))
    }

    /// Entries that open `port` at any address, because they have a TCP port and hosts, but no addresses: the first host
    /// of each stands for it.
    pub(crate) fn open_port(&self, port: u16) -> impl Iterator<Item = (PatternRef, EntryId)> {
        let start = self.open_ports.partition_point(|(number, _)| *number < port);
        let rest = self.open_ports.get(start..).unwrap_or_default();
        rest.iter().take_while(move |(number, _)| *number == port).filter_map(|(_, entry)| {
            let host = self.entry(EntryId(*entry))?.host?;
            Some((host, EntryId(*entry)))
        })
    }

    pub(crate) fn entry(&self, entry: EntryId) -> Option<&Entry> {
        self.entries.get(entry.0)
    }

    /// What the entry's port lets through; `None` when it does not list the port. Entries without ports have every port,
    /// see [`Entry::has_ports`].
    pub(crate) fn families(&self, entry: &Entry, port: u16) -> Option<Families> {
        self.ports.families(entry.ports, port)
    }

    /// When the entry expires, in Unix seconds.
    pub(crate) fn expires(&self, entry: &Entry) -> Option<i64> {
        self.expiries.get((entry.expires as usize).checked_sub(1)?).copied()
    }

    /// Whether the entry lists `address`.
    pub(crate) fn lists_address(&self, entry: EntryId, address: IpAddr) -> bool {
        self.around(address).any(|(_, other)| other == entry)
    }

    /// Whether a named destination can be allowed by its address or port: there are entries without hosts, or with a TCP
    /// port.
    pub(crate) fn decides_named_by_address(&self) -> bool {
        self.named_by_address
    }

    pub(crate) fn has_open_ports(&self) -> bool {
        !self.open_ports.is_empty()
    }

    pub(crate) fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    pub(crate) fn has_hosts(&self) -> bool {
        self.hosts.len() > 0
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// The number of entries.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries.len()
    }

    /// The number of distinct host patterns.
    #[must_use]
    pub fn host_patterns(&self) -> u32 {
        self.hosts.len()
    }

    /// The entry's name; without one, its first host. Empty for an entry of addresses only.
    #[must_use]
    pub fn entry_name(&self, entry: EntryId) -> String {
        let Some(entry) = self.entry(entry) else {
            return String::new();
        };
        match (entry.name.checked_sub(1), entry.host) {
            (Some(name), _) => self.hosts.kept(name).to_owned(),
            (None, Some(host)) => self.pattern(host).to_string(),
            (None, None) => String::new(),
        }
    }

    /// A pattern in normal form, as metrics and messages show it: a name, `*.suffix`, a glob, an address or a CIDR.
    #[must_use]
    pub fn pattern(&self, pattern: PatternRef) -> impl fmt::Display {
        fmt::from_fn(move |f| match pattern.kind() {
            PatternKind::Address(row) => self.addresses.cidr(row).map_or(Ok(()), |cidr| fmt::Display::fmt(&cidr, f)),
            _ => self.hosts.write(pattern, f),
        })
    }
}

impl Entry {
    pub(crate) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    pub(crate) fn has_hosts(&self) -> bool {
        self.host.is_some()
    }
}

/// Builds a [`Registry`] entry by entry, each of them value by value, so that a long list is never held twice.
#[derive(Debug, Default)]
pub(crate) struct RegistryBuilder {
    registry: Registry,
    ports: ports::PortSetsBuilder,
    addresses: Vec<(Cidr, u32)>,
    expiries: Vec<i64>,
    open_ports: Vec<(u16, u32)>,
}

/// The registry can hold no more names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RegistryFull;

impl RegistryFull {
    pub(crate) const LIMIT: u32 = hosts::MAX_NODES;
}

impl RegistryBuilder {
    /// Makes room for about so many hosts.
    pub(crate) fn expect(&mut self, hosts: usize) {
        self.registry.hosts.expect(hosts);
    }

    /// Starts an entry; what follows belongs to it.
    pub(crate) fn begin_entry(&mut self) {
        let entry = Entry { ports: ports::PortSet::default(), expires: 0, host: None, name: 0, has_addresses: false };
        self.registry.entries.push(entry);
    }

    pub(crate) fn host(&mut self, pattern: &HostPattern<'_>) -> Result<(), RegistryFull> {
        let id = self.current();
        let reference = self.registry.hosts.add(pattern, id).ok_or(RegistryFull)?;
        if let Some(entry) = self.entry_mut() {
            entry.host.get_or_insert(reference);
        }
        Ok(())
    }

    pub(crate) fn address(&mut self, cidr: Cidr) {
        self.addresses.push((cidr, self.current()));
        if let Some(entry) = self.entry_mut() {
            entry.has_addresses = true;
        }
    }

    pub(crate) fn ports(&mut self, ports: &[(u16, Option<Protocol>)]) {
        let set = self.ports.intern(ports);
        if let Some(entry) = self.entry_mut() {
            entry.ports = set;
        }
    }

    pub(crate) fn expires(&mut self, unix_seconds: i64) {
        self.expiries.push(unix_seconds);
        let position = u32::try_from(self.expiries.len()).unwrap_or(u32::MAX);
        if let Some(entry) = self.entry_mut() {
            entry.expires = position;
        }
    }

    pub(crate) fn name(&mut self, name: &str) {
        let position = self.registry.hosts.keep(name);
        if let Some(entry) = self.entry_mut() {
            entry.name = position + 1;
        }
    }

    /// Ends the entry.
    pub(crate) fn end_entry(&mut self) {
        let id = self.current();
        let Some(entry) = self.registry.entries.get(id) else {
            return;
        };
        let tcp = self.ports.sets().ports(entry.ports).iter().filter(|(_, families)| families.has_tcp());
        match (entry.has_hosts(), entry.has_addresses) {
            (false, _) => self.registry.named_by_address = true,
            (true, true) => self.registry.named_by_address |= tcp.count() > 0,
            (true, false) => self.open_ports.extend(tcp.map(|(port, _)| (*port, id))),
        }
    }

    pub(crate) fn finish(self) -> Registry {
        let mut registry = self.registry;
        registry.hosts.shrink();
        registry.entries.shrink();
        registry.addresses = CidrTable::new(self.addresses);
        registry.ports = self.ports.finish();
        registry.expiries = self.expiries;
        registry.open_ports = BinaryHeap::from(self.open_ports).into_sorted_vec();
        registry.open_ports.shrink_to_fit();
        registry.named_by_address |= !registry.open_ports.is_empty();
        registry
    }

    fn current(&self) -> u32 {
        self.registry.entries.len().saturating_sub(1)
    }

    fn entry_mut(&mut self) -> Option<&mut Entry> {
        let current = self.current();
        self.registry.entries.get_mut(current)
    }
}
