//! Small worlds: configurations and what is asked of them, as data, over so few labels, addresses and ports that nearly
//! everything overlaps. Each can be written as a configuration's JSON.

use std::net::IpAddr;

use egress_filter::config::KnownNode;
use egress_filter::policy::{Unnamed, WireProtocol};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// 2027-01-15T08:00:30Z.
pub const NOW: i64 = 1_800_000_030;

#[derive(Clone, Debug, Default)]
pub struct Config {
    pub settings: Settings,
    pub registry: Vec<Entry>,
    pub deny: Vec<Entry>,
    pub overrides: Vec<Override>,
    pub mesh: Mesh,
    pub spoof_protection: bool,
}

/// What an override may set, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    pub allow_any: Option<bool>,
    pub report: Option<bool>,
}

#[derive(Clone, Debug)]
pub struct Override {
    pub matches: bool,
    pub settings: Settings,
    pub registry: Vec<Entry>,
    pub deny: Vec<Entry>,
}

#[derive(Clone, Debug, Default)]
pub struct Mesh {
    /// `None` leaves the field out.
    pub domains: Option<Vec<&'static str>>,
    pub addresses: Vec<Prefix>,
    pub gateways: Vec<&'static str>,
    pub trust: bool,
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub hosts: Vec<Spelt>,
    pub addresses: Vec<Prefix>,
    pub ports: Vec<(u16, Option<&'static str>)>,
    pub expires: Option<i64>,
}

/// A name or pattern in normal form, and how it is written.
#[derive(Clone, Debug)]
pub struct Spelt {
    pub normal: String,
    upper: bool,
    dot: bool,
}

/// What kind of pattern a text in normal form is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Exact,
    Glob,
    Wildcard,
}

/// An address: 32 or 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpText {
    pub v6: bool,
    pub bits: u128,
    /// Written as an IPv6 address when it is an IPv4 one.
    mapped: bool,
}

/// A prefix, perhaps with host bits set.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    pub ip: IpText,
    pub length: u32,
}

#[derive(Clone, Debug)]
pub struct Asked {
    pub protocol: WireProtocol,
    pub whom: Whom,
    pub address: Option<IpText>,
    pub port: Option<u16>,
    pub connect_port: Option<u16>,
    pub route: Routed,
    pub routed_by_name: bool,
}

#[derive(Clone, Debug)]
pub enum Whom {
    Name(Spelt),
    Ip(IpText),
    Nobody(Unnamed),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routed {
    Passthrough,
    Service(&'static str),
    External,
    Unknown,
}

/// The sidecar that the overrides match, or do not.
pub fn node() -> KnownNode {
    KnownNode {
        namespace: Some("dev".to_owned()),
        workload: Some("crawler".to_owned()),
        labels: [("team".to_owned(), "data".to_owned())].into(),
    }
}

/// The labels after the last one with a `*`; of an exact name, all.
pub fn literal_suffix(pattern: &str) -> &str {
    let behind_star = pattern.rfind('*').map_or(pattern, |star| &pattern[star..]);
    if behind_star == pattern && !pattern.contains('*') {
        return pattern;
    }
    behind_star.split_once('.').map_or("", |(_, suffix)| suffix)
}

impl Kind {
    pub fn of(pattern: &str) -> Self {
        match pattern.strip_prefix("*.") {
            Some(rest) if !rest.contains('*') => Kind::Wildcard,
            _ if pattern.contains('*') => Kind::Glob,
            _ => Kind::Exact,
        }
    }
}

impl Spelt {
    pub fn spelt(&self) -> String {
        let text = if self.upper { self.normal.to_uppercase() } else { self.normal.clone() };
        if self.dot { format!("{text}.") } else { text }
    }
}

impl IpText {
    pub fn std(self) -> IpAddr {
        let v4 = u32::try_from(self.bits);
        match v4 {
            Ok(v4) if !self.v6 && self.mapped => IpAddr::V6(std::net::Ipv4Addr::from(v4).to_ipv6_mapped()),
            Ok(v4) if !self.v6 => IpAddr::V4(v4.into()),
            _ => IpAddr::V6(self.bits.into()),
        }
    }

    /// As an authority has it.
    pub fn bracketed(self) -> String {
        match self.std() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        }
    }
}

impl Prefix {
    fn text(self) -> String {
        let whole = if self.ip.v6 { 128 } else { 32 };
        // A prefix of the whole length is written as an address every other time.
        match self.length {
            length if length == whole && self.ip.bits.is_multiple_of(2) => self.ip.std().to_string(),
            length if self.ip.mapped && !self.ip.v6 => format!("{}/{}", self.ip.std(), length + 96),
            length => format!("{}/{length}", self.ip.std()),
        }
    }
}

impl Config {
    pub fn json(&self) -> Value {
        let mut config = json!({
            "spoofProtection": self.spoof_protection,
            "mesh": {
                "addresses": self.mesh.addresses.iter().map(|prefix| prefix.text()).collect::<Vec<_>>(),
                "egressGateways": self.mesh.gateways,
                "trustRegistry": self.mesh.trust,
            },
            "overrides": self.overrides.iter().map(Override::json).collect::<Vec<_>>(),
        });
        if let Some(domains) = &self.mesh.domains {
            config["mesh"]["domains"] = json!(domains);
        }
        self.settings.add_to(&mut config);
        add_lists(&mut config, &self.registry, &self.deny);
        config
    }
}

impl Override {
    fn json(&self) -> Value {
        let matching = [json!({}), json!({"namespaces": ["qa", "dev"]}), json!({"labels": {"team": "data"}})];
        let other = [json!({"namespaces": ["qa"]}), json!({"workloads": []}), json!({"labels": {"team": "web"}})];
        let which = (self.registry.len() + self.deny.len()) % 3;
        let mut json = json!({"match": if self.matches { &matching[which] } else { &other[which] }});
        self.settings.add_to(&mut json);
        add_lists(&mut json, &self.registry, &self.deny);
        json
    }
}

impl Settings {
    fn add_to(self, json: &mut Value) {
        if let Some(allow_any) = self.allow_any {
            json["outboundTrafficPolicy"]["mode"] = json!(if allow_any { "ALLOW_ANY" } else { "REGISTRY_ONLY" });
        }
        if let Some(report) = self.report {
            json["enforcement"] = json!(if report { "REPORT" } else { "ENFORCE" });
        }
    }
}

fn add_lists(json: &mut Value, registry: &[Entry], deny: &[Entry]) {
    json["registry"] = registry.iter().map(Entry::json).collect();
    json["deny"] = deny.iter().map(Entry::json).collect();
}

impl Entry {
    fn json(&self) -> Value {
        let ports = self.ports.iter().map(|(number, protocol)| match protocol {
            Some(protocol) => json!({"number": number, "protocol": protocol}),
            None => json!({"number": number}),
        });
        let mut json = json!({
            "hosts": self.hosts.iter().map(Spelt::spelt).collect::<Vec<_>>(),
            "addresses": self.addresses.iter().map(|prefix| prefix.text()).collect::<Vec<_>>(),
        });
        if !self.ports.is_empty() {
            json["ports"] = ports.collect();
        }
        if let Some(expires) = self.expires {
            json["expires"] = json!(format!("2027-01-15T08:00:{}Z", 30 + expires - NOW));
        }
        json
    }
}

fn name(labels: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(select(vec!["a", "b", "ab", "ba"]), labels).prop_map(|labels| labels.join("."))
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just("a.b".to_owned()),
        3 => select(vec!["b.b", "a.a.b", "ab.b.b"]).prop_map(str::to_owned),
        1 => name(2..=3),
    ]
}

fn spelt(text: impl Strategy<Value = String>) -> impl Strategy<Value = Spelt> {
    (text, prop::bool::weighted(0.2), prop::bool::weighted(0.2)).prop_map(|(normal, upper, dot)| Spelt {
        normal,
        upper,
        dot,
    })
}

fn pattern() -> impl Strategy<Value = String> {
    let label = select(vec!["*", "*", "a*", "*a", "b*", "*b", "a*b", "*b*", "*a*b*", "a", "b", "ab"]);
    let glob = (prop::collection::vec(label, 1..=3), domain()).prop_map(|(mut inner, domain)| {
        if !inner.iter().any(|label| label.contains('*')) {
            inner[0] = "*b";
        }
        format!("{}.{domain}", inner.join("."))
    });
    prop_oneof![
        4 => (name(1..=2), domain()).prop_map(|(inner, domain)| format!("{inner}.{domain}")),
        1 => name(1..=2),
        3 => domain().prop_map(|domain| format!("*.{domain}")),
        1 => select(vec!["*.b", "*.a"]).prop_map(str::to_owned),
        4 => glob,
    ]
}

fn ip() -> impl Strategy<Value = IpText> {
    // Two bits at either end, so that prefixes nest and differ at both.
    (prop::bool::weighted(0.3), 0..4_u128, 0..4_u128, prop::bool::weighted(0.1)).prop_map(|(v6, high, low, mapped)| {
        IpText { v6, bits: high << (if v6 { 126 } else { 30 }) | low, mapped: mapped && !v6 }
    })
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (ip(), select(vec![1, 2, 8, 30, 31, 32, 32, 32, 0])).prop_map(|(ip, length)| {
        // Counted from the same end as the two bits.
        let length = if ip.v6 && length >= 30 { length + 96 } else { length };
        Prefix { ip, length }
    })
}

fn ports() -> impl Strategy<Value = Vec<(u16, Option<&'static str>)>> {
    let protocols = vec!["HTTP", "http2", "GRPC", "grpc-web", "HTTPS", "TLS", "tls", "TCP", "Mongo", "MYSQL", "REDIS"];
    let port = (select(vec![80, 80, 443, 3306]), prop::option::weighted(0.8, select(protocols)));
    prop_oneof![2 => Just(Vec::new()), 3 => prop::collection::vec(port, 1..=3)]
}

fn entry(expiring: bool) -> impl Strategy<Value = Entry> {
    let hosts = || prop::collection::vec(spelt(pattern()), 1..=4);
    let addresses = || prop::collection::vec(prefix(), 1..=3);
    let places = prop_oneof![
        3 => hosts().prop_map(|hosts| (hosts, Vec::new())),
        2 => addresses().prop_map(|addresses| (Vec::new(), addresses)),
        2 => (hosts(), addresses()),
    ];
    let expires = prop::option::weighted(0.3, NOW - 1..=NOW + 1);
    (places, ports(), expires).prop_map(move |((hosts, addresses), ports, expires)| Entry {
        hosts,
        addresses,
        ports,
        expires: expires.filter(|_| expiring),
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let given = || prop::option::weighted(0.4, prop::bool::weighted(0.4));
    (given(), given()).prop_map(|(allow_any, report)| Settings { allow_any, report })
}

fn mesh() -> impl Strategy<Value = Mesh> {
    let domains = prop::option::weighted(
        0.3,
        select(vec![vec![], vec!["mesh.internal"], vec!["CLUSTER.local.", "mesh.internal"], vec!["svc.cluster.local"]]),
    );
    let gateways = select(vec![vec![], vec!["gw.cluster.local"], vec!["GW.cluster.local.", "api.mesh.internal"]]);
    (domains, prop::collection::vec(prefix(), 0..=2), gateways, any::<bool>()).prop_map(
        |(domains, addresses, gateways, trust)| Mesh {
            domains,
            // A mesh of all addresses would leave nothing else to see.
            addresses: addresses.into_iter().filter(|prefix| prefix.length > 0).collect(),
            gateways,
            trust,
        },
    )
}

pub fn config() -> impl Strategy<Value = Config> {
    let registry = |most| prop::collection::vec(entry(true), 0..=most);
    let deny = |most| prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(entry(false), 1..=most)];
    let overridden = (any::<bool>(), settings(), registry(2), deny(1))
        .prop_map(|(matches, settings, registry, deny)| Override { matches, settings, registry, deny });
    let overrides = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(overridden, 1..=3)];
    (settings(), registry(8), deny(2), overrides, mesh(), any::<bool>()).prop_map(
        |(settings, registry, deny, overrides, mesh, spoof_protection)| Config {
            settings,
            registry,
            deny,
            overrides,
            mesh,
            spoof_protection,
        },
    )
}

pub fn asked() -> impl Strategy<Value = Asked> {
    let protocol = select(vec![WireProtocol::Http, WireProtocol::Grpc, WireProtocol::Tls, WireProtocol::Tcp]);
    let host = prop_oneof![
        4 => (name(1..=3), domain()).prop_map(|(inner, domain)| format!("{inner}.{domain}")),
        1 => name(1..=5),
    ];
    let nobody = select(vec![
        Unnamed::InvalidName,
        Unnamed::Nameless,
        Unnamed::NoSni,
        Unnamed::InvalidClientHello,
        Unnamed::NoClientData,
        Unnamed::ServerFirst,
        Unnamed::Opaque,
    ]);
    let whom = prop_oneof![
        5 => spelt(host).prop_map(Whom::Name),
        2 => ip().prop_map(Whom::Ip),
        2 => nobody.prop_map(Whom::Nobody),
    ];
    let port = prop_oneof![
        5 => Just(Some(80)),
        3 => Just(Some(443)),
        3 => Just(Some(3306)),
        1 => Just(Some(81)),
        1 => Just(None)
    ];
    let services =
        vec!["svc.cluster.local", "x.svc.cluster.local", "CLUSTER.local", "gw.cluster.local", "xcluster.local"];
    let more = vec!["api.mesh.internal", "other.mesh.internal", "a.b", "*.a.b", "not a name"];
    let service = prop_oneof![select(services), select(more)];
    let route = prop_oneof![
        4 => Just(Routed::Passthrough),
        2 => service.prop_map(Routed::Service),
        3 => Just(Routed::External),
        1 => Just(Routed::Unknown),
    ];
    let same = prop::bool::weighted(0.6);
    let routed_by_name = prop::bool::weighted(0.7);
    let connect_port = prop::option::weighted(0.1, select(vec![80, 443, 3306, 81]));
    let asked =
        (protocol, whom, prop::option::weighted(0.95, ip()), (port, connect_port), (route, routed_by_name), same);
    asked.prop_map(|(protocol, whom, address, (port, connect_port), (route, routed_by_name), same)| {
        // Only an HTTP request that names somebody can be a CONNECT.
        let connects = matches!(protocol, WireProtocol::Http) && !matches!(whom, Whom::Nobody(_));
        let connect_port = connect_port.filter(|_| connects);
        // Who asks for an address by its number mostly goes there.
        let address = match whom {
            Whom::Ip(ip) if same => Some(ip),
            _ => address,
        };
        Asked { protocol, whom, address, port, connect_port, route, routed_by_name }
    })
}
