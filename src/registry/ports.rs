//! Ports and protocols of an entry.

use std::fmt;
use std::hash::BuildHasher;
use std::str::FromStr;

use hashbrown::{DefaultHashBuilder, HashMap};

/// The protocol of a port, as Istio's `ServiceEntry` names it. Case does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(Family);

/// What a protocol says about the bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Any HTTP: `HTTP`, `HTTP2`, `GRPC`, `GRPC-WEB`.
    Http,
    /// Any TLS: `HTTPS`, `TLS`.
    Tls,
    /// Any bytes, TLS and HTTP included, and matched by address alone, as Istio does it: `TCP`, `MONGO`, `MYSQL`, `REDIS`.
    Tcp,
}

/// Every protocol, in the spelling that messages use.
const PROTOCOLS: [(&str, Family); 10] = [
    ("HTTP", Family::Http),
    ("HTTPS", Family::Tls),
    ("HTTP2", Family::Http),
    ("GRPC", Family::Http),
    ("GRPC-WEB", Family::Http),
    ("TLS", Family::Tls),
    ("TCP", Family::Tcp),
    ("MONGO", Family::Tcp),
    ("MYSQL", Family::Tcp),
    ("REDIS", Family::Tcp),
];

impl Protocol {
    /// The family.
    #[must_use]
    pub fn family(self) -> Family {
        self.0
    }

    /// All names.
    pub const NAMES: [&'static str; PROTOCOLS.len()] = {
        let mut names = [""; PROTOCOLS.len()];
        let mut position = 0;
        while position < names.len() {
            #[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
            {
                names[position] = PROTOCOLS[position].0;
            }
            position += 1;
        }
        names
    };
}

impl FromStr for Protocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        if text.eq_ignore_ascii_case("UDP") {
            return Err(InvalidProtocol::Udp);
        }
        let known = PROTOCOLS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        known.map(|(_, family)| Protocol(*family)).ok_or(InvalidProtocol::Unknown)
    }
}

/// Why a text is no protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidProtocol {
    /// A sidecar does not see UDP.
    Udp,
    /// None of the names that are known.
    Unknown,
}

impl fmt::Display for InvalidProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidProtocol::Udp => f.write_str("a sidecar does not see UDP; use a NetworkPolicy for it"),
            InvalidProtocol::Unknown => f.write_str("unknown protocol"),
        }
    }
}

impl std::error::Error for InvalidProtocol {}

/// What one port of an entry lets through: a set of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Families(u8);

impl Families {
    const HTTP: u8 = 1;
    const TLS: u8 = 2;
    const TCP: u8 = 4;
    /// A port without protocol takes all; unlike on a TCP port, the name counts.
    const ALL: u8 = 8;

    fn of(protocol: Option<Protocol>) -> Self {
        Families(match protocol.map(Protocol::family) {
            None => Self::ALL,
            Some(Family::Http) => Self::HTTP,
            Some(Family::Tls) => Self::TLS,
            Some(Family::Tcp) => Self::TCP,
        })
    }

    /// Whether bytes of `family` fit, when the entry was matched by name.
    pub(crate) fn take(self, family: Family) -> bool {
        let bit = match family {
            Family::Http => Self::HTTP,
            Family::Tls => Self::TLS,
            Family::Tcp => 0,
        };
        self.0 & (bit | Self::ALL) != 0
    }

    /// Whether this is a port that is matched by address.
    pub(crate) fn has_tcp(self) -> bool {
        self.0 & Self::TCP != 0
    }

    /// Whether this is a port that is matched by address and by nothing else.
    pub(crate) fn only_tcp(self) -> bool {
        self.0 == Self::TCP
    }
}

/// The port lists of all entries, each distinct list once.
#[derive(Debug, Default)]
pub(crate) struct PortSets {
    ports: Vec<(u16, Families)>,
    /// Where each set ends in `ports`; it starts where the one before ends.
    ends: Vec<u32>,
}

/// A list in [`PortSets`]; 0 is the empty one, which takes every port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet(u32);

impl PortSet {
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl PortSets {
    /// The families that a port of a set takes; `None` when the set does not hold the port.
    pub(crate) fn families(&self, set: PortSet, port: u16) -> Option<Families> {
        let ports = self.ports(set);
        let position = ports.binary_search_by_key(&port, |(number, _)| *number).ok()?;
        ports.get(position).map(|(_, families)| *families)
    }

    /// The ports of a set, in ascending order.
    pub(crate) fn ports(&self, set: PortSet) -> &[(u16, Families)] {
        let Some(position) = (set.0 as usize).checked_sub(1) else {
            return &[];
        };
        let end = self.ends.get(position).copied().unwrap_or_default();
        let start = position.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        self.ports.get(start as usize..end as usize).unwrap_or_default()
    }
}

/// Builds [`PortSets`].
#[derive(Debug, Default)]
pub(crate) struct PortSetsBuilder {
    sets: PortSets,
    /// By hash: the sets that have it.
    known: HashMap<u64, Vec<u32>>,
    hasher: DefaultHashBuilder,
    /// Used again from entry to entry.
    sorted: Vec<(u16, Families)>,
}

impl PortSetsBuilder {
    /// The set of these ports; several lines for one port add up.
    pub(crate) fn intern(&mut self, ports: &[(u16, Option<Protocol>)]) -> PortSet {
        if ports.is_empty() {
            return PortSet::default();
        }
        self.sorted.clear();
        for (port, protocol) in ports {
            let families = Families::of(*protocol);
            match self.sorted.binary_search_by_key(port, |(number, _)| *number) {
                Ok(position) => {
                    if let Some((_, sum)) = self.sorted.get_mut(position) {
                        sum.0 |= families.0;
                    }
                }
                Err(position) => self.sorted.insert(position, (*port, families)),
            }
        }
        let same_hash = self.known.entry(self.hasher.hash_one(&self.sorted)).or_default();
        if let Some(set) = same_hash.iter().find(|set| self.sets.ports(PortSet(**set)) == self.sorted) {
            return PortSet(*set);
        }
        self.sets.ports.extend_from_slice(&self.sorted);
        self.sets.ends.push(u32::try_from(self.sets.ports.len()).unwrap_or(u32::MAX));
        let set = u32::try_from(self.sets.ends.len()).unwrap_or(u32::MAX);
        same_hash.push(set);
        PortSet(set)
    }

    pub(crate) fn sets(&self) -> &PortSets {
        &self.sets
    }

    pub(crate) fn finish(mut self) -> PortSets {
        self.sets.ports.shrink_to_fit();
        self.sets.ends.shrink_to_fit();
        self.sets
    }
}
