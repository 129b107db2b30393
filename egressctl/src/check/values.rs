//! Single entries: what they open, how they are written, when they end.

use std::collections::BTreeSet;
use std::net::IpAddr;

use egress_filter::address::Cidr;
use egress_filter::config::KnownNode;
use egress_filter::mesh::Route;
use egress_filter::name::HostName;
use egress_filter::pattern::HostPattern;
use egress_filter::policy::{Destination, KnownAttributes, Policy, Reason, Target, WireProtocol};
use egress_filter::registry::{EntryId, Family};

use super::entries::Parsed;
use super::finding::Findings;
use super::rule;
use super::service_entries::Hosts;
use crate::configuration::{Configuration, List, entry_name};
use crate::document::Node;
use crate::time::Time;

/// Shorter prefixes are wide: a /8 of IPv4 is a 256th of it, a /16 of IPv6 more than any one operator has.
const WIDE: (u8, u8) = (8, 16);

/// Until when "soon" is.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Now.
    pub now: Time,
    /// What expires before this, expires soon.
    pub soon: Time,
}

/// Looks at each entry by itself.
pub fn check(configuration: &Configuration<'_>, entries: &[Parsed<'_>], horizon: Horizon, findings: &mut Findings) {
    let object = &configuration.object;
    let exact: BTreeSet<String> = entries
        .iter()
        .filter(|parsed| parsed.entry.list == List::Registry)
        .flat_map(|parsed| &parsed.hosts)
        .map(|(pattern, _)| pattern.to_string())
        .collect();
    for parsed in entries {
        let is_registry = parsed.entry.list == List::Registry;
        for (pattern, node) in &parsed.hosts {
            let text = node.text().unwrap_or_default();
            if is_registry && let Some(suffix) = public_suffix(pattern) {
                let message = format!(
                    "{text:?}: {suffix:?} is a public suffix, below which anybody can register names; name the domains"
                );
                findings.add(&rule::PUBLIC_SUFFIX, object, node, message);
            }
            let normal = pattern.to_string();
            if text.is_ascii() && text != normal {
                findings.add(&rule::NORMAL_FORM, object, node, format!("{text:?} is stored as {normal:?}; write that"));
            }
            if let (true, HostPattern::Suffix(suffix)) = (is_registry, pattern)
                && public_suffix(pattern).is_none()
                && !exact.contains(suffix.as_str())
            {
                let message =
                    format!("{text:?} does not match {:?} itself; list that, too, if it is meant", suffix.as_str());
                findings.add(&rule::APEX, object, node, message);
            }
        }
        for (cidr, node) in &parsed.addresses {
            let text = node.text().unwrap_or_default();
            let least = if cidr.base().is_ipv4() { WIDE.0 } else { WIDE.1 };
            if is_registry && cidr.length() < least {
                let message = format!("{text:?} has {} bits: name the networks that are meant", cidr.length());
                findings.add(&rule::WIDE_ADDRESS, object, node, message);
            }
            let written = text.split_once('/').map_or(text, |(address, _)| address).parse::<IpAddr>();
            if written.is_ok_and(|written| written.to_canonical() != cidr.base()) {
                findings.add(&rule::NORMAL_FORM, object, node, format!("{text:?} is stored as \"{cidr}\"; write that"));
            }
        }
        if is_registry {
            of_registry(configuration, parsed, horizon, findings);
        }
    }
}

fn of_registry(configuration: &Configuration<'_>, parsed: &Parsed<'_>, horizon: Horizon, findings: &mut Findings) {
    let object = &configuration.object;
    let path = &parsed.entry.path;
    let open: Vec<String> = parsed.tcp_ports().map(|port| port.to_string()).collect();
    if !open.is_empty() && parsed.addresses.is_empty() && !parsed.hosts.is_empty() {
        let message = format!(
            "{path}: port {} is open at every address, for every name: TCP goes by address. Give the entry addresses",
            open.join(", ")
        );
        findings.add(&rule::OPEN_PORT, object, parsed.entry.node, message);
    }
    if parsed.ports.is_empty() && parsed.entry.node.get("ports").is_none() {
        let message =
            format!("{path} {}: every port and every protocol; name the ports", entry_name(parsed.entry.node));
        findings.add(&rule::NO_PORTS, object, parsed.entry.node, message);
    }
    if let Some((expires, node)) = &parsed.expires {
        if *expires <= horizon.now {
            let message =
                format!("{path} has expired ({expires}) and permits nothing; take it out, or set a later time");
            findings.add(&rule::EXPIRED, object, node, message);
        } else if *expires <= horizon.soon {
            let days = (expires.0 - horizon.now.0) / (24 * 60 * 60);
            let message = format!("{path} expires in {days} days ({expires})");
            findings.add(&rule::EXPIRES_SOON, object, node, message);
        }
    }
}

/// Looks for what the registry lists and the deny list has, too: the filter itself is asked.
pub fn check_denied(
    configuration: &Configuration<'_>,
    entries: &[Parsed<'_>],
    policy: &Policy,
    findings: &mut Findings,
) {
    if policy.deny().is_empty() {
        return;
    }
    let deny = configuration.entries_for(List::Deny, &KnownNode::default());
    let mut told = |at: &Node, id: EntryId, repair: &str| {
        let Some(entry) = deny.get(id.position()) else { return };
        let message = format!(
            "{:?} is denied by {} ({}), which wins; {repair}",
            at.text().unwrap_or_default(),
            entry.path,
            configuration.object.document.locate(entry.node)
        );
        findings.add(&rule::DENIED_ANYWAY, &configuration.object, at, message);
    };
    let prefixes: BTreeSet<Cidr> = entries
        .iter()
        .filter(|parsed| parsed.entry.list == List::Deny)
        .flat_map(|parsed| parsed.addresses.iter().map(|(cidr, _)| *cidr))
        .collect();
    let ports: BTreeSet<u16> = entries.iter().flat_map(|parsed| &parsed.ports).map(|(number, _)| *number).collect();
    let other = (1..=u16::MAX).rev().find(|number| !ports.contains(number)).unwrap_or(u16::MAX);
    for parsed in
        entries.iter().filter(|parsed| parsed.entry.list == List::Registry && parsed.entry.in_override.is_none())
    {
        let by = |target: &Target<'_>, address: Option<IpAddr>| -> Option<EntryId> {
            let ids: Option<Vec<EntryId>> = permitted(parsed, other)
                .into_iter()
                .map(|(port, protocol)| denied(policy, Destination { protocol, target: target.clone() }, address, port))
                .collect();
            ids?.into_iter().next()
        };
        let repair = if parsed.hosts.len() == 1 && !parsed.addresses.is_empty() {
            "take the whole entry out (without hosts it would be for every name at its addresses), or that out of deny"
        } else {
            "take it out of one of the two"
        };
        // On TCP ports the hosts do not count.
        for (pattern, at) in parsed.hosts.iter().filter(|_| parsed.tcp_ports().next().is_none()) {
            let name = representative(pattern);
            let Ok(name) = HostName::from_config(&name) else { continue };
            if let Some(id) = by(&Target::Name(name), None) {
                told(at, id, repair);
            }
        }
        // With hosts beside them, addresses say where these are.
        for (cidr, at) in parsed.addresses.iter().filter(|_| parsed.hosts.is_empty()) {
            // One prefix must hold all of it.
            let is_held = (0..=cidr.length()).any(|length| prefixes.contains(&Cidr::new(cidr.base(), length)));
            if is_held && let Some(id) = by(&Target::Ip(cidr.base()), Some(cidr.base())) {
                told(at, id, "take it out of one of the two");
            }
        }
    }
}

fn denied(policy: &Policy, destination: Destination<'_>, address: Option<IpAddr>, port: u16) -> Option<EntryId> {
    let attributes = KnownAttributes { address, ..by_name(port) };
    let decision = policy.decide_denied(&destination, &attributes)?;
    (decision.reason == Reason::DenyListed).then_some(decision.entry).flatten()
}

/// What is known of a call that goes by its name, to an address that is not known.
#[must_use]
pub fn by_name(port: u16) -> KnownAttributes<'static> {
    KnownAttributes {
        address: None,
        port: Some(port),
        connect_port: None,
        route: Route::Passthrough,
        is_routed_by_name: true,
        now: 0,
    }
}

/// All that an entry permits: each port with each protocol, and for one without ports a port that nobody names.
fn permitted(parsed: &Parsed<'_>, other: u16) -> Vec<(u16, WireProtocol)> {
    const BY_NAME: [WireProtocol; 2] = [WireProtocol::Http, WireProtocol::Tls];
    if parsed.ports.is_empty() {
        return probes(parsed).chain(BY_NAME.map(|protocol| (other, protocol))).collect();
    }
    let each = parsed.ports.iter().flat_map(|(number, family)| {
        let protocols = match family {
            None => BY_NAME.as_slice(),
            Some(Family::Http) => &[WireProtocol::Http],
            Some(Family::Tls) => &[WireProtocol::Tls],
            Some(Family::Tcp) => &[WireProtocol::Tcp],
        };
        protocols.iter().map(|protocol| (*number, *protocol))
    });
    each.collect()
}

/// What an entry permits, port by port; for one without ports HTTP and TLS on their usual ones.
pub fn probes(parsed: &Parsed<'_>) -> impl Iterator<Item = (u16, WireProtocol)> {
    let usual = [(80, WireProtocol::Http), (443, WireProtocol::Tls)];
    let own = parsed.ports.iter().map(|(number, family)| match family {
        Some(Family::Http) => (*number, WireProtocol::Http),
        None if *number == 443 => (*number, WireProtocol::Tls),
        None => (*number, WireProtocol::Http),
        Some(Family::Tls) => (*number, WireProtocol::Tls),
        Some(Family::Tcp) => (*number, WireProtocol::Tcp),
    });
    own.chain(usual.into_iter().filter(|_| parsed.ports.is_empty()))
}

/// A name that the pattern matches, and as few others as possible do.
#[must_use]
pub fn representative(pattern: &HostPattern<'_>) -> String {
    match pattern {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(suffix) => format!("egressctl-probe.{suffix}"),
        HostPattern::Glob(_) => pattern.to_string().replace('*', "egressctl-probe"),
    }
}

/// The literal suffix of a wildcard or glob, if that is a public suffix that is known as one.
fn public_suffix<'p>(pattern: &'p HostPattern<'_>) -> Option<&'p str> {
    let literal = match pattern {
        HostPattern::Exact(_) => return None,
        HostPattern::Suffix(suffix) => suffix.as_str(),
        HostPattern::Glob(glob) => glob.suffix(),
    };
    let suffix = psl::suffix(literal.as_bytes())?;
    (suffix.is_known() && suffix.as_bytes() == literal.as_bytes()).then_some(literal)
}

/// Whether workloads that spoof a name reach other addresses, or, where that is prevented, whether hosts are denied for
/// want of addresses: one finding for a configuration, not one for each host.
pub fn check_spoofing(
    configuration: &Configuration<'_>,
    entries: &[Parsed<'_>],
    policy: &Policy,
    hosts: &Hosts,
    findings: &mut Findings,
) {
    let is_protected = policy.spoof_protection();
    let mut names = BTreeSet::new();
    for parsed in entries.iter().filter(|parsed| parsed.entry.list == List::Registry && parsed.goes_by_name()) {
        let own = parsed.hosts.iter().map(|(pattern, _)| pattern);
        names.extend(
            own.filter(|pattern| {
                if is_protected { parsed.addresses.is_empty() && !hosts.have(pattern) } else { !hosts.resolve(pattern) }
            })
            .map(ToString::to_string),
        );
    }
    let Some(first) = names.first() else {
        return;
    };
    let more = match names.len() {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    let (rule, message) = if is_protected {
        let message = format!(
            "{first:?}{more}: spoofProtection denies it where Envoy passes it through: no addresses, and no ServiceEntry here; \
             add either"
        );
        (&rule::UNVERIFIABLE, message)
    } else {
        let message = format!(
            "{first:?}{more}: no ServiceEntry here resolves the name, so a workload may give it and connect to any address; \
             add ServiceEntries with resolution DNS, or addresses and spoofProtection: true"
        );
        (&rule::SPOOFABLE, message)
    };
    findings.add(rule, &configuration.object, configuration.find("registry"), message);
}
