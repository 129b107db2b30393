//! What the design (sections 2 to 4) says about a world, without an index, an early exit or a line of the source.

use std::net::{Ipv4Addr, Ipv6Addr};

use egress_filter::policy::{Unnamed, WireProtocol};

use super::world::{Asked, Config, Entry, IpText, Kind, NOW, Prefix, Routed, Settings, Whom, literal_suffix};

/// What a policy decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub verdict: &'static str,
    pub reason: &'static str,
    pub label: String,
    /// The entry that decided, by its place in the registry or in the deny list.
    pub entry: Option<usize>,
}

/// What it should decide.
#[derive(Debug)]
pub struct Expected {
    verdict: &'static str,
    reason: &'static str,
    /// Several, where several globs of one entry have the same literal suffix: the design does not say which counts.
    labels: Vec<String>,
    entry: Option<usize>,
}

impl Expected {
    pub fn permits(&self, found: &Found) -> bool {
        (self.verdict, self.reason, self.entry) == (found.verdict, found.reason, found.entry)
            && self.labels.contains(&found.label)
    }

    fn matched(verdict: &'static str, reason: &'static str, matches: &[&Match]) -> Self {
        let first = matches[0];
        let equal = matches.iter().filter(|other| other.place == first.place);
        Expected { verdict, reason, labels: equal.map(|other| other.label.clone()).collect(), entry: Some(first.entry) }
    }
}

/// Where a match stands among others, the most specific first: its class, how short its literal suffix or prefix is, its
/// kind, and its entry.
type Place = (Class, usize, Kind, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Name,
    IpInPlaceOfName,
    Address,
    AnyAddress,
}

/// How much is wrong with an entry that matches, the smallest repair first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Misses {
    Verification,
    Time,
    Protocol,
    Port,
}

#[derive(Debug)]
struct Match {
    place: Place,
    label: String,
    entry: usize,
    misses: Option<Misses>,
}

pub fn decide(config: &Config, asked: &Asked) -> Expected {
    let (settings, registry, deny) = overridden(config);
    let denied = if settings.report == Some(true) { "would_deny" } else { "denied" };

    let mut deny_matches = deny_matches(&deny, asked);
    deny_matches.sort_by_key(|found| found.place);
    if !deny_matches.is_empty() {
        return Expected::matched(denied, "deny_listed", &deny_matches.iter().collect::<Vec<_>>());
    }

    // What is no name may be a spelling of one that the deny list has.
    let denies_hosts = deny.iter().any(|entry| !entry.hosts.is_empty());
    let hidden = match asked.whom {
        Whom::Nobody(Unnamed::InvalidName) => Some(("invalid_name", "invalid".to_owned())),
        Whom::Nobody(Unnamed::InvalidClientHello) => {
            Some(("invalid_client_hello", ip_and_port(asked.address, asked.port)))
        }
        _ => None,
    };
    if let Some((reason, label)) = hidden.filter(|_| denies_hosts) {
        return Expected { verdict: denied, reason, labels: vec![label], entry: None };
    }

    let mut matches = registry_matches(config, &registry, asked);
    matches.sort_by_key(|found| found.place);
    let (permitting, missing): (Vec<_>, Vec<_>) = matches.iter().partition(|found| found.misses.is_none());
    if !permitting.is_empty() {
        return Expected::matched("allowed", "listed", &permitting);
    }
    if let Some((reason, label)) = by_mesh(config, asked) {
        return Expected { verdict: "allowed", reason, labels: vec![label], entry: None };
    }

    let unlisted = match asked.whom {
        Whom::Name(_) | Whom::Ip(_) | Whom::Nobody(Unnamed::Opaque) => "not_listed",
        Whom::Nobody(Unnamed::InvalidName | Unnamed::Nameless) => "invalid_name",
        Whom::Nobody(Unnamed::NoSni) => "no_sni",
        Whom::Nobody(Unnamed::InvalidClientHello) => "invalid_client_hello",
        Whom::Nobody(Unnamed::NoClientData) => "no_client_data",
        Whom::Nobody(Unnamed::ServerFirst) => "server_first",
    };
    let outside = is_internal(config, asked) && !is_verified_internal(config, asked);
    let reason = match missing.iter().filter_map(|found| found.misses).min() {
        None if outside => "unverified_destination",
        None => unlisted,
        Some(Misses::Verification) => "unverified_destination",
        Some(Misses::Time) => "expired",
        // Of a client that said nothing nobody knows the protocol.
        Some(Misses::Protocol) if matches!(asked.whom, Whom::Nobody(Unnamed::NoClientData)) => "no_client_data",
        Some(Misses::Protocol) => "protocol_not_listed",
        Some(Misses::Port) => "port_not_listed",
    };
    // Under ALLOW_ANY the registry only names traffic.
    let allow_any = settings.allow_any == Some(true);
    let (verdict, reason) = if allow_any { ("allowed", "allow_any") } else { (denied, reason) };
    if !missing.is_empty() {
        return Expected::matched(verdict, reason, &missing);
    }
    let label = match &asked.whom {
        Whom::Name(name) => name.normal.clone(),
        Whom::Ip(ip) => ip_and_port(Some(*ip), asked.connect_port.or(asked.port)),
        Whom::Nobody(Unnamed::InvalidName | Unnamed::Nameless) if !allow_any => "invalid".to_owned(),
        Whom::Nobody(_) => ip_and_port(asked.address, asked.port),
    };
    Expected { verdict, reason, labels: vec![label], entry: None }
}

/// Overrides apply in order: later scalars win, lists add up.
fn overridden(config: &Config) -> (Settings, Vec<&Entry>, Vec<&Entry>) {
    let mut settings = config.settings;
    let mut registry: Vec<&Entry> = config.registry.iter().collect();
    let mut deny: Vec<&Entry> = config.deny.iter().collect();
    for other in &config.overrides {
        if other.matches {
            settings.allow_any = other.settings.allow_any.or(settings.allow_any);
            settings.report = other.settings.report.or(settings.report);
            registry.extend(&other.registry);
            deny.extend(&other.deny);
        }
    }
    (settings, registry, deny)
}

/// `deny` looks at the name and at the destination address, whatever else the entry has.
fn deny_matches(deny: &[&Entry], asked: &Asked) -> Vec<Match> {
    let mut matches = Vec::new();
    for (number, entry) in deny.iter().enumerate() {
        // A TCP port takes any bytes; here the name counts on it, too. A port that is not known may be
        // the entry's.
        let fits = |port: Option<u16>| {
            let families: Vec<Option<Family>> = families_at(entry, port);
            entry.ports.is_empty()
                || port.is_none()
                || families.iter().any(|family| matches!(family, None | Some(Family::Tcp)) || *family == wire(asked))
        };
        let by_address = fits(asked.port);
        // A name on the port that CONNECT asks for, and on the connection's.
        let by_name = by_address || asked.connect_port.is_some() && fits(asked.connect_port);
        let mut add = |fits: bool, place, label| {
            if fits {
                matches.push(Match { place, label, entry: number, misses: None });
            }
        };
        if let Whom::Name(name) = &asked.whom {
            each_host(entry, number, &name.normal, &mut |place, label| add(by_name, place, label));
        }
        if let Whom::Ip(ip) = asked.whom {
            let class = Class::IpInPlaceOfName;
            each_prefix(entry, number, class, ip, &mut |place, label| add(by_name, place, label));
        }
        if let Some(address) = asked.address {
            each_prefix(entry, number, Class::Address, address, &mut |place, label| add(by_address, place, label));
        }
    }
    matches
}

fn registry_matches(config: &Config, registry: &[&Entry], asked: &Asked) -> Vec<Match> {
    let mut matches = Vec::new();
    let spoofable = config.spoof_protection && matches!(asked.route, Routed::Passthrough | Routed::Unknown);
    // What is routed by its name to a service of Istio's goes to that, not to the address of the connection.
    let elsewhere = asked.routed_by_name
        && !matches!(asked.whom, Whom::Ip(_))
        && matches!(asked.route, Routed::Service(_) | Routed::Unknown);
    for (number, entry) in registry.iter().enumerate() {
        let any_port = entry.ports.is_empty();
        let expired = entry.expires.is_some_and(|expires| expires <= NOW);
        let in_time = if expired { Some(Misses::Time) } else { None };
        let at_address = families_at(entry, asked.port);
        let at_name = families_at(entry, asked.connect_port.or(asked.port));
        let takes_bytes = |at_port: &[Option<Family>]| {
            any_port || at_port.iter().any(|family| family.is_none() || *family == wire(asked))
        };
        let on_tcp_port = |at_port: &[Option<Family>]| at_port.contains(&Some(Family::Tcp));
        // What vouches for an address must vouch for its port.
        let opens_port = any_port || !at_address.is_empty();
        let mut add = |place, label, misses| matches.push(Match { place, label, entry: number, misses });

        if let Whom::Name(name) = &asked.whom {
            let at_port = &at_name;
            // On a TCP port the name is not looked at.
            let only_tcp = !at_port.is_empty() && at_port.iter().all(|family| *family == Some(Family::Tcp));
            let lists = |address| entry.addresses.iter().any(|p| holds(*p, address));
            let verified = !spoofable || opens_port && asked.address.is_some_and(lists);
            let fits = takes_bytes(at_port) && wire(asked) != Some(Family::Tcp) || any_port || at_port.contains(&None);
            let misses = match () {
                () if !any_port && at_port.is_empty() => Some(Misses::Port),
                () if !fits => Some(Misses::Protocol),
                () if expired => Some(Misses::Time),
                () if !verified => Some(Misses::Verification),
                () => None,
            };
            if !only_tcp {
                each_host(entry, number, &name.normal, &mut |place, label| add(place, label, misses));
            }
        }

        // By address: entries without hosts; where there is no name, those with hosts as well; TCP ports in any case.
        let by_address = entry.hosts.is_empty() || !matches!(asked.whom, Whom::Name(_));
        let misses = |at_port: &[Option<Family>]| match () {
            () if !any_port && at_port.is_empty() => Some(Misses::Port),
            () if !takes_bytes(at_port) && !on_tcp_port(at_port) => Some(Misses::Protocol),
            () => in_time,
        };
        if let Whom::Ip(ip) = asked.whom {
            // It must be the destination.
            let verified = !spoofable || opens_port && asked.address.is_some_and(|address| same(address, ip));
            let misses = misses(&at_name).or(if verified { None } else { Some(Misses::Verification) });
            each_prefix(entry, number, Class::IpInPlaceOfName, ip, &mut |place, label| add(place, label, misses));
        }
        if by_address || on_tcp_port(&at_address) {
            let misses = misses(&at_address);
            if let Some(address) = asked.address.filter(|_| !elsewhere) {
                each_prefix(entry, number, Class::Address, address, &mut |place, label| add(place, label, misses));
            }
        }
        // As in Istio, a TCP port of an entry with hosts and without addresses is open at any address.
        if on_tcp_port(&at_address) && entry.addresses.is_empty() && !elsewhere {
            let place = (Class::AnyAddress, 0, Kind::Exact, number);
            let misses = in_time.or(if spoofable { Some(Misses::Verification) } else { None });
            add(place, entry.hosts[0].normal.clone(), misses);
        }
    }
    matches
}

fn is_internal(config: &Config, asked: &Asked) -> bool {
    matches!(asked.route, Routed::Service(_))
        && by_route(config, asked).is_some_and(|(reason, _)| reason == "mesh_internal")
}

/// With spoof protection and addresses of the mesh, a service inside it is reached at one of them.
fn is_verified_internal(config: &Config, asked: &Asked) -> bool {
    let inside = |address| config.mesh.addresses.iter().any(|prefix| holds(*prefix, address));
    !config.spoof_protection || config.mesh.addresses.is_empty() || asked.address.is_some_and(inside)
}

fn by_mesh(config: &Config, asked: &Asked) -> Option<(&'static str, String)> {
    if is_internal(config, asked) && !is_verified_internal(config, asked) {
        return None;
    }
    by_route(config, asked)
}

fn by_route(config: &Config, asked: &Asked) -> Option<(&'static str, String)> {
    match asked.route {
        Routed::External | Routed::Unknown => None,
        Routed::Passthrough => {
            let address = asked.address?;
            let inside = config.mesh.addresses.iter().any(|prefix| holds(*prefix, address));
            inside.then(|| ("mesh_internal", "mesh".to_owned()))
        }
        Routed::Service(host) => {
            let normal = |text: &str| text.to_lowercase().trim_end_matches('.').to_owned();
            let domains = config.mesh.domains.clone().unwrap_or_else(|| vec!["cluster.local"]);
            let within =
                domains.iter().any(|domain| format!(".{}", normal(host)).ends_with(&format!(".{}", normal(domain))));
            let leads_outside = config.mesh.gateways.iter().any(|gateway| normal(gateway) == normal(host));
            match () {
                () if leads_outside => None,
                () if within => Some(("mesh_internal", "mesh".to_owned())),
                () if config.mesh.trust => Some(("mesh_registry", host.to_owned())),
                () => None,
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Http,
    Tls,
    Tcp,
}

fn wire(asked: &Asked) -> Option<Family> {
    Some(match asked.protocol {
        WireProtocol::Http | WireProtocol::Grpc => Family::Http,
        WireProtocol::Tls => Family::Tls,
        WireProtocol::Tcp => Family::Tcp,
    })
}

/// The families of all lines that an entry has for a port; a line without protocol is `None`.
fn families_at(entry: &Entry, port: Option<u16>) -> Vec<Option<Family>> {
    let lines = entry.ports.iter().filter(|(number, _)| Some(*number) == port);
    lines
        .map(|(_, protocol)| {
            protocol.map(|protocol| match protocol.to_uppercase().as_str() {
                "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" => Family::Http,
                "HTTPS" | "TLS" => Family::Tls,
                "TCP" | "MONGO" | "MYSQL" | "REDIS" => Family::Tcp,
                other => panic!("{other} is no protocol"),
            })
        })
        .collect()
}

fn each_host(entry: &Entry, number: usize, name: &str, add: &mut impl FnMut(Place, String)) {
    for host in &entry.hosts {
        if pattern_matches(&host.normal, name) {
            let kind = Kind::of(&host.normal);
            // Exact, then the longer suffix, then globs before wildcards, then the earlier entry.
            let shortness = if kind == Kind::Exact { 0 } else { 1_000 - literal_suffix(&host.normal).len() };
            add((Class::Name, shortness, kind, number), host.normal.clone());
        }
    }
}

fn each_prefix(entry: &Entry, number: usize, class: Class, ip: IpText, add: &mut impl FnMut(Place, String)) {
    for prefix in &entry.addresses {
        if holds(*prefix, ip) {
            let width = if prefix.ip.v6 { 128 } else { 32 };
            let base = prefix.ip.bits & !host_bits(*prefix);
            let base = if prefix.ip.v6 {
                Ipv6Addr::from(base).to_string()
            } else {
                Ipv4Addr::from(u32::try_from(base).unwrap()).to_string()
            };
            let label = if prefix.length == width { base } else { format!("{base}/{}", prefix.length) };
            let shortness = (width - prefix.length) as usize;
            add((class, shortness, Kind::Exact, number), label);
        }
    }
}

fn host_bits(prefix: Prefix) -> u128 {
    let bits = if prefix.ip.v6 { 128 } else { 32 } - prefix.length;
    if bits == 128 { u128::MAX } else { (1 << bits) - 1 }
}

fn holds(prefix: Prefix, ip: IpText) -> bool {
    prefix.ip.v6 == ip.v6 && (prefix.ip.bits ^ ip.bits) & !host_bits(prefix) == 0
}

fn same(a: IpText, b: IpText) -> bool {
    a.v6 == b.v6 && a.bits == b.bits
}

/// The target of a connection that no entry matches and no name describes.
fn ip_and_port(ip: Option<IpText>, port: Option<u16>) -> String {
    let Some(ip) = ip else {
        return "unknown".to_owned();
    };
    let text = if ip.v6 {
        Ipv6Addr::from(ip.bits).to_string()
    } else {
        Ipv4Addr::from(u32::try_from(ip.bits).unwrap()).to_string()
    };
    match port {
        None => text,
        Some(port) if ip.v6 => format!("[{text}]:{port}"),
        Some(port) => format!("{text}:{port}"),
    }
}

/// Whether a pattern in normal form matches a name in normal form: exact, wildcard and glob alike.
pub fn pattern_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    match pattern.split_first() {
        Some((&"*", rest)) => (1..=name.len()).any(|labels| labels_match(rest, &name[labels..])),
        _ => labels_match(&pattern, &name),
    }
}

fn labels_match(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((glob, globs)), Some((label, labels))) => label_matches(glob, label) && labels_match(globs, labels),
        _ => false,
    }
}

fn label_matches(glob: &str, label: &str) -> bool {
    match (glob.split_at_checked(1), label.split_at_checked(1)) {
        (None, None) => true,
        (Some(("*", rest)), _) => (0..=label.len()).any(|run| label_matches(rest, &label[run..])),
        (Some((g, globs)), Some((l, labels))) => g == l && label_matches(globs, labels),
        _ => false,
    }
}
