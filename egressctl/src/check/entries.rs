//! The entries of a configuration, read for the rules: patterns, prefixes, ports. What the filter refuses is left out here;
//! EG001 tells of it.

use egress_filter::address::Cidr;
use egress_filter::pattern::HostPattern;
use egress_filter::registry::{Family, Protocol};

use crate::configuration::{Configuration, Entry};
use crate::document::{Node, Value};
use crate::time::Time;

/// An entry in parts.
#[derive(Debug)]
pub struct Parsed<'a> {
    /// Where it stands.
    pub entry: Entry<'a>,
    /// Its hosts, each with its node.
    pub hosts: Vec<(HostPattern<'a>, &'a Node)>,
    /// Its addresses, each with its node.
    pub addresses: Vec<(Cidr, &'a Node)>,
    /// Its ports; `None` as protocol is any.
    pub ports: Vec<(u16, Option<Family>)>,
    /// When it expires.
    pub expires: Option<(Time, &'a Node)>,
}

/// All entries of a configuration, as [`Configuration::entries`] has them.
#[must_use]
pub fn parse<'a>(configuration: &Configuration<'a>) -> Vec<Parsed<'a>> {
    configuration.entries().into_iter().map(Parsed::of).collect()
}

impl<'a> Parsed<'a> {
    /// An entry in parts.
    #[must_use]
    pub fn of(entry: Entry<'a>) -> Self {
        let list = |key| entry.node.elements(key).iter();
        let hosts = list("hosts").filter_map(|node| Some((HostPattern::from_config(node.text()?).ok()?, node)));
        let addresses = list("addresses").filter_map(|node| Some((node.text()?.parse().ok()?, node)));
        let ports = list("ports").filter_map(|port| {
            let Value::Number(number) = &port.get("number")?.value else { return None };
            let number = whole(number)?;
            let protocol = port.get("protocol").and_then(Node::text).and_then(|text| text.parse::<Protocol>().ok());
            Some((number, protocol.map(Protocol::family)))
        });
        let expires = entry.node.get("expires").and_then(|node| Some((Time::parse(node.text()?).ok()?, node)));
        Parsed { hosts: hosts.collect(), addresses: addresses.collect(), ports: ports.collect(), expires, entry }
    }

    /// Ports of the TCP family.
    pub fn tcp_ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().filter(|(_, family)| *family == Some(Family::Tcp)).map(|(number, _)| *number)
    }

    /// Whether its hosts count: on TCP ports they do not.
    #[must_use]
    pub fn goes_by_name(&self) -> bool {
        self.ports.is_empty() || self.ports.iter().any(|(_, family)| *family != Some(Family::Tcp))
    }

    /// Whether this permits, on the ports of `other`, whatever `other` does, for as long.
    #[must_use]
    pub fn covers_ports_of(&self, other: &Parsed<'_>) -> bool {
        let lasts = match (&self.expires, &other.expires) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((own, _)), Some((others, _))) => own >= others,
        };
        let has = |number: u16, family: Option<Family>| {
            self.ports.iter().any(|(own, own_family)| *own == number && (own_family.is_none() || *own_family == family))
        };
        let ports = self.ports.is_empty()
            || (!other.ports.is_empty() && other.ports.iter().all(|(number, family)| has(*number, *family)));
        lasts && ports
    }
}

/// A port as the filter reads numbers, where `443.0` is `443`.
fn whole(number: &serde_json::Number) -> Option<u16> {
    // Without a fraction it is printed as an integer.
    number.as_f64()?.to_string().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_as_the_filter_does() {
        for (text, expected) in [
            ("443", Some(443)),
            ("443.0", Some(443)),
            ("4.43e2", Some(443)),
            ("443.5", None),
            ("-1", None),
            ("65536", None),
        ] {
            let number: serde_json::Number = serde_json::from_str(text).unwrap();
            assert_eq!(whole(&number), expected, "{text}");
        }
    }
}
