//! IP addresses and prefixes of the configuration, and the table that finds the prefixes around an address.

use std::collections::BinaryHeap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An IP prefix in CIDR notation (RFC 4632, RFC 4291); an address alone is a prefix of its whole length.
///
/// IPv4-mapped IPv6 is IPv4. Host bits are zero: `10.1.2.3/8` is `10.0.0.0/8`. A prefix sorts before those within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    base: IpAddr,
    length: u8,
}

impl Cidr {
    /// The prefix of `length` bits that `address` is in; longer than the address's own length means its own length.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Cidr { base: IpAddr::V4((v4.to_bits() & mask).into()), length }
            }
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => Cidr::new(IpAddr::V4(v4), length - 96),
                _ => {
                    let length = length.min(128);
                    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                    Cidr { base: IpAddr::V6((v6.to_bits() & mask).into()), length }
                }
            },
        }
    }

    /// The first address of the prefix.
    #[must_use]
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// The prefix's length in bits: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether `address` is in this prefix.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.base.is_ipv4() && Cidr::new(address, self.length).base == self.base
    }
}

impl fmt::Display for Cidr {
    /// Writes a prefix of the whole length as the address alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.base.is_ipv4() { 32 } else { 128 };
        if self.length == whole { write!(f, "{}", self.base) } else { write!(f, "{}/{}", self.base, self.length) }
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidCidr::Address)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => whole,
            Some(digits) if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(InvalidCidr::Length { whole });
            }
            Some(digits) => digits.parse().map_err(|_| InvalidCidr::Length { whole })?,
        };
        if length > whole {
            return Err(InvalidCidr::Length { whole });
        }
        Ok(Cidr::new(address, length))
    }
}

/// Why a text is no address and no prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidCidr {
    /// What stands before the slash is no IP address.
    Address,
    /// What stands after it is no number from 0 to `whole`.
    Length {
        /// The address's length in bits.
        whole: u8,
    },
}

impl fmt::Display for InvalidCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidCidr::Address => f.write_str("not an IP address or CIDR"),
            InvalidCidr::Length { whole } => write!(f, "the prefix length must be a number from 0 to {whole}"),
        }
    }
}

impl std::error::Error for InvalidCidr {}

/// Prefixes, each with the numbers of the entries that list it, found by an address within them.
///
/// Prefixes either nest or are disjoint. So the prefix that starts last at or before an address, or one that it is nested
/// in, is the longest around it, and the rest are that one's parents: one binary search and a walk upwards, at most as
/// long as an address has bits.
#[derive(Debug, Default)]
pub(crate) struct CidrTable {
    v4: Vec<Row<u32>>,
    v6: Vec<Row<u128>>,
    /// The entries of all rows, one row's after the other's.
    entries: Vec<u32>,
}

#[derive(Debug)]
struct Row<A> {
    first: A,
    last: A,
    /// One more than the position of the prefix that this one is nested in; 0 is none.
    parent: u32,
    /// Where this row's entries end in [`CidrTable::entries`]; they start where those of the row before end.
    end: u32,
}

/// Marks the row of an IPv6 prefix in a row number.
const V6: u32 = 1 << 28;

impl CidrTable {
    /// A table of `prefixes`; one that several entries list may stand there several times.
    pub(crate) fn new(prefixes: Vec<(Cidr, u32)>) -> Self {
        // A heap sorts as well as `sort` does, in a tenth of the code: the module's size counts.
        let mut prefixes = BinaryHeap::from(prefixes).into_sorted_vec();
        prefixes.dedup();
        let mut table = CidrTable::default();
        let mut previous = None;
        for (cidr, entry) in prefixes {
            table.entries.push(entry);
            let end = u32::try_from(table.entries.len()).unwrap_or(u32::MAX);
            let repeated = previous.replace(cidr) == Some(cidr);
            let length = u32::from(cidr.length);
            match cidr.base {
                IpAddr::V4(base) => add(&mut table.v4, repeated, end, base.to_bits(), u32::MAX.checked_shr(length)),
                IpAddr::V6(base) => add(&mut table.v6, repeated, end, base.to_bits(), u128::MAX.checked_shr(length)),
            }
        }
        nest(&mut table.v4);
        nest(&mut table.v6);
        table.v4.shrink_to_fit();
        table.v6.shrink_to_fit();
        table.entries.shrink_to_fit();
        table
    }

    /// The prefixes around `address`, the longest first: their row numbers and the entries that list them, in order.
    pub(crate) fn around(&self, address: IpAddr) -> impl Iterator<Item = (u32, &[u32])> {
        let (v4, v6) = match address.to_canonical() {
            IpAddr::V4(v4) => (Some(walk(&self.v4, v4.to_bits())), None),
            IpAddr::V6(v6) => (None, Some(walk(&self.v6, v6.to_bits()).map(|row| row | V6))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten()).map(|row| (row, self.entries(row)))
    }

    /// Whether a prefix holds `address`.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.around(address).next().is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The prefix of a row that [`around`](Self::around) gave.
    pub(crate) fn cidr(&self, row: u32) -> Option<Cidr> {
        let position = (row & !V6) as usize;
        if row & V6 == 0 {
            let row = self.v4.get(position)?;
            Some(Cidr {
                base: IpAddr::V4(row.first.into()),
                length: prefix_length((row.first ^ row.last).leading_zeros()),
            })
        } else {
            let row = self.v6.get(position)?;
            Some(Cidr {
                base: IpAddr::V6(row.first.into()),
                length: prefix_length((row.first ^ row.last).leading_zeros()),
            })
        }
    }

    fn entries(&self, row: u32) -> &[u32] {
        let position = (row & !V6) as usize;
        let end_of = |position: usize, v6: bool| {
            if v6 { self.v6.get(position).map(|row| row.end) } else { self.v4.get(position).map(|row| row.end) }
        };
        let is_v6 = row & V6 != 0;
        let start = match position.checked_sub(1) {
            Some(before) => end_of(before, is_v6),
            None if is_v6 => self.v4.last().map(|row| row.end),
            None => None,
        };
        let end = end_of(position, is_v6).unwrap_or(0);
        self.entries.get(start.unwrap_or(0) as usize..end as usize).unwrap_or_default()
    }
}

fn prefix_length(bits: u32) -> u8 {
    u8::try_from(bits).unwrap_or(u8::MAX)
}

fn add<A: Copy + Default + std::ops::BitOr<Output = A>>(
    rows: &mut Vec<Row<A>>,
    repeated: bool,
    end: u32,
    first: A,
    host_bits: Option<A>,
) {
    match rows.last_mut() {
        Some(row) if repeated => row.end = end,
        _ => rows.push(Row { first, last: first | host_bits.unwrap_or_default(), parent: 0, end }),
    }
}

fn nest<A: Ord + Copy>(rows: &mut [Row<A>]) {
    // The prefixes that are still open where the next one starts, as positions plus one.
    let mut open: Vec<(u32, A)> = Vec::new();
    for (position, row) in (1..).zip(rows.iter_mut()) {
        while open.last().is_some_and(|(_, last)| *last < row.first) {
            open.pop();
        }
        row.parent = open.last().map_or(0, |(position, _)| *position);
        open.push((position, row.last));
    }
}

fn walk<A: Ord + Copy>(rows: &[Row<A>], address: A) -> impl Iterator<Item = u32> {
    let mut next = u32::try_from(rows.partition_point(|row| row.first <= address)).unwrap_or(0);
    std::iter::from_fn(move || {
        loop {
            let position = next.checked_sub(1)?;
            let row = rows.get(position as usize)?;
            next = row.parent;
            if row.last >= address {
                return Some(position);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_and_prints_prefixes() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1"),
            ("::/0", "::/0"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(text.parse::<Cidr>().map(|cidr| cidr.to_string()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_prefix() {
        for (text, expected) in [
            ("", InvalidCidr::Address),
            ("a.com", InvalidCidr::Address),
            ("10.0.0", InvalidCidr::Address),
            ("010.0.0.1", InvalidCidr::Address),
            ("0x7f.0.0.1", InvalidCidr::Address),
            ("[::1]", InvalidCidr::Address),
            ("10.0.0.0/33", InvalidCidr::Length { whole: 32 }),
            ("10.0.0.0/", InvalidCidr::Length { whole: 32 }),
            ("10.0.0.0/+8", InvalidCidr::Length { whole: 32 }),
            ("10.0.0.0/0008", InvalidCidr::Length { whole: 32 }),
            ("::/129", InvalidCidr::Length { whole: 128 }),
            ("::/256", InvalidCidr::Length { whole: 128 }),
        ] {
            assert_eq!(text.parse::<Cidr>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn an_ipv6_prefix_never_holds_an_ipv4_address() {
        let everything: Cidr = "::/0".parse().unwrap();
        assert!(!everything.contains("10.0.0.1".parse().unwrap()));
        assert!(!everything.contains("::ffff:10.0.0.1".parse().unwrap()));
        assert!(everything.contains("2001:db8::1".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn finds_the_prefixes_that_a_scan_finds(
            // Few distinct bits, so that prefixes nest often.
            mut cidrs in prop::collection::vec((any::<bool>(), 0u32..16, 0u8..=128), 0..40),
            address in (any::<bool>(), 0u32..16, 0u8..4),
        ) {
            let ip = |v4: bool, bits: u32| -> IpAddr {
                if v4 { IpAddr::V4((bits << 28).into()) } else { IpAddr::V6((u128::from(bits) << 124).into()) }
            };
            cidrs.truncate(40);
            let mut all: Vec<Cidr> = cidrs.iter().map(|&(v4, bits, length)| Cidr::new(ip(v4, bits), length % 40)).collect();
            all.sort_unstable_by_key(Cidr::to_string);
            all.dedup();
            let table = CidrTable::new((0..).zip(&all).flat_map(|(n, cidr)| [(*cidr, n), (*cidr, n + 100)]).collect());
            let address = ip(address.0, address.1 | u32::from(address.2));
            let mut expected: Vec<Cidr> = all.iter().copied().filter(|cidr| cidr.contains(address)).collect();
            expected.sort_unstable_by_key(|cidr| std::cmp::Reverse(cidr.length()));
            let found: Vec<Cidr> = table.around(address).filter_map(|(row, _)| table.cidr(row)).collect();
            prop_assert_eq!(found, expected);
            for (row, entries) in table.around(address) {
                let number = all.iter().position(|cidr| Some(*cidr) == table.cidr(row)).unwrap() as u32;
                prop_assert_eq!(entries, [number, number + 100]);
            }
        }
    }
}
