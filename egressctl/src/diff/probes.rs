//! What to ask two configurations about, so that no difference in reach is missed: of each pattern, each prefix and each
//! port that either has a destination that stands for all that it covers, and one for whatever neither has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use egress_filter::address::Cidr;
use egress_filter::config::KnownNode;
use egress_filter::name::HostName;
use egress_filter::policy::{Target, Unnamed, WireProtocol};

use crate::call::{Call, RouteName};
use crate::check::entries::{Parsed, parse};
use crate::check::values::representative;
use crate::configuration::{Configuration, List, Plugin};
use crate::document::Node;

/// A pattern or prefix, and a destination that stands for it.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As people are shown it.
    pub name: String,
    /// Other subjects: where one of them changes in the same way, so does this, and nothing is said of it.
    pub follows: Vec<String>,
    asks: Asks,
    address: Option<IpAddr>,
    route: RouteName,
}

/// Whom it asks for.
#[derive(Clone, Debug)]
enum Asks {
    Name(HostName<'static>),
    /// An address in place of a name; only over HTTP.
    Literal(IpAddr),
    /// By address alone.
    Nobody,
    /// A Host or SNI that is no name.
    NoName,
}

/// A port, or all that nobody names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Port {
    /// This one.
    Named(u16),
    /// One that no entry has.
    Other(u16),
}

impl Port {
    fn number(self) -> u16 {
        match self {
            Port::Named(number) | Port::Other(number) => number,
        }
    }
}

/// Everything to ask about.
#[derive(Debug, Default)]
pub struct Probes {
    /// Patterns, prefixes, and what is neither.
    pub subjects: Vec<Subject>,
    /// Ports, the other one last.
    pub ports: Vec<Port>,
    /// Sidecars that overrides or namespaces tell apart; the first is any other.
    pub nodes: Vec<(String, KnownNode)>,
    /// How many more of them there are, too many to ask about.
    pub more_nodes: usize,
}

/// How many names are asked for at each prefix.
const CROSSED: usize = 50;

/// The most sidecars that are told apart.
const MAX_NODES: usize = 1000;

impl Probes {
    /// What two sets of configurations can differ in.
    #[must_use]
    pub fn of(configurations: &[Configuration<'_>], root_namespace: &str) -> Self {
        let entries: Vec<Parsed<'_>> = configurations.iter().flat_map(parse).collect();
        let mesh = |key| lists(configurations, key);
        let inner: BTreeSet<Cidr> = mesh("addresses").iter().filter_map(|text| text.parse().ok()).collect();
        let mut prefixes: BTreeSet<Cidr> =
            entries.iter().flat_map(|parsed| &parsed.addresses).map(|(cidr, _)| *cidr).collect();
        prefixes.extend(&inner);
        let inside = inner.iter().next().map(|cidr| within(*cidr, &prefixes));
        let elsewhere = "192.0.0.171".parse().ok().filter(|ip| !prefixes.iter().any(|cidr| cidr.contains(*ip)));
        let domains = mesh("domains");
        let mut subjects: Vec<Subject> = Vec::new();
        // They are asked for last: most of them change with another that is simpler to read.
        let mut combined: Vec<Subject> = Vec::new();
        let mut names = BTreeMap::new();
        for parsed in &entries {
            let address = parsed.addresses.first().map(|(cidr, _)| cidr.base());
            // Where the hosts do not count, the addresses tell it all.
            let counts = parsed.goes_by_name() || address.is_none() || parsed.entry.list == List::Deny;
            for (pattern, _) in parsed.hosts.iter().filter(|_| counts) {
                let (name, asks) = (pattern.to_string(), Asks::name(&representative(pattern)));
                // Spoof protection asks for an address that the entry has.
                subjects.push(Subject::new(&name, asks.clone(), address).following(&[ANY_HOST]));
                if let Some(inside) = inside {
                    let within_mesh =
                        Subject::new(&format!("{name} within mesh.addresses"), asks.clone(), Some(inside));
                    combined.push(within_mesh.following(&[&name, ANY_HOST]));
                }
                names.insert(name, asks);
            }
        }
        subjects.sort_by(|a, b| (&a.name, a.address).cmp(&(&b.name, b.address)));
        subjects.dedup_by(|a, b| (&a.name, a.address) == (&b.name, b.address));
        for cidr in &prefixes {
            let name = cidr.to_string();
            let address = Some(within(*cidr, &prefixes));
            subjects.push(Subject::new(&name, Asks::Nobody, address).following(&[ANY_ADDRESS]));
            let mut add = |subject: Subject, follows: &[&str]| combined.push(subject.following(follows));
            add(Subject::new(&format!("other hosts at {name}"), Asks::name(OTHER), address), &[&name, ANY_HOST]);
            add(
                Subject::new(&format!("what is no name at {name}"), Asks::NoName, address),
                &[&name, NO_NAME, ANY_HOST],
            );
            for elsewhere in [inside, elsewhere].into_iter().flatten() {
                let asks = address.map_or(Asks::Nobody, Asks::Literal);
                let subject = Subject::new(&format!("{name} as Host, sent elsewhere"), asks, Some(elsewhere));
                add(subject, &[&name, ANY_ADDRESS]);
            }
            let internal = domains.first().map_or("cluster.local", String::as_str);
            let service = Subject::service(&format!("services at {name}"), &format!("egressctl-probe.{internal}"));
            add(Subject { address, ..service }, &[&name, ANY_HOST]);
            let named = format!("listed or denied hosts at {name}");
            for (host, asks) in names.iter().take(CROSSED) {
                add(Subject::new(&named, asks.clone(), address), &[&name, host, ANY_HOST]);
            }
        }
        for host in domains.iter().chain(&["cluster.local".to_owned()]).collect::<BTreeSet<_>>() {
            subjects.push(Subject::service(&format!("services under {host}"), &format!("egressctl-probe.{host}")));
        }
        for host in mesh("egressGateways") {
            subjects.push(Subject::service(&format!("by the gateway {host}"), &host));
        }
        subjects.push(Subject::service("other services that Istio knows", OTHER));
        let mut all = vec![Subject::new(ANY_HOST, Asks::name(OTHER), None)];
        let no_name = Subject::new(NO_NAME, Asks::NoName, None);
        let other_address = elsewhere.map(|_| Subject::new(ANY_ADDRESS, Asks::Nobody, elsewhere));
        all.extend([no_name.following(&[ANY_HOST])].into_iter().chain(other_address));
        all.extend(subjects);
        all.extend(combined);
        let subjects = all;
        let ports: BTreeSet<u16> = entries.iter().flat_map(|parsed| &parsed.ports).map(|(number, _)| *number).collect();
        let other = (1..=u16::MAX).find(|number| !ports.contains(number));
        let ports = ports.iter().map(|number| Port::Named(*number)).chain(other.map(Port::Other)).collect();
        let (nodes, more_nodes) = nodes(configurations, root_namespace);
        Probes { subjects, ports, nodes, more_nodes }
    }
}

/// What neither configuration names.
const ANY_HOST: &str = "any other host";
/// An address that neither has.
const ANY_ADDRESS: &str = "any other address";
/// A Host or SNI that is none.
const NO_NAME: &str = "what is no name";

/// A name that no configuration has.
const OTHER: &str = "egressctl-probe.invalid";

impl Asks {
    fn name(text: &str) -> Self {
        HostName::from_config(text).map_or(Asks::NoName, |name| Asks::Name(name.into_owned()))
    }
}

impl Subject {
    fn new(name: &str, asks: Asks, address: Option<IpAddr>) -> Self {
        let route = RouteName::passthrough();
        Subject { name: name.to_owned(), follows: Vec::new(), asks, address, route }
    }

    fn following(self, others: &[&str]) -> Self {
        Subject { follows: others.iter().map(|&name| name.to_owned()).collect(), ..self }
    }

    /// What Istio routes to a service.
    fn service(name: &str, host: &str) -> Self {
        let subject = Subject { route: RouteName::service(host, 80), ..Subject::new(name, Asks::name(OTHER), None) };
        subject.following(&[ANY_HOST])
    }

    /// The ways to ask for it on a port: by name over HTTP and TLS, by address over everything.
    pub fn calls(&self, port: Port) -> impl Iterator<Item = Call> {
        let protocols: &[WireProtocol] = match self.asks {
            Asks::Name(_) | Asks::NoName => &[WireProtocol::Http, WireProtocol::Tls],
            Asks::Literal(_) => &[WireProtocol::Http],
            Asks::Nobody => &[WireProtocol::Tcp, WireProtocol::Http, WireProtocol::Tls],
        };
        protocols.iter().map(move |protocol| {
            let target = match (&self.asks, protocol, self.address) {
                (Asks::Name(name), ..) => Target::Name(name.clone()),
                (Asks::Literal(ip), ..) => Target::Ip(*ip),
                (Asks::NoName, ..) => Target::Unnamed(Unnamed::InvalidName),
                (Asks::Nobody, WireProtocol::Http, Some(address)) => Target::Ip(address),
                (Asks::Nobody, WireProtocol::Tls, _) => Target::Unnamed(Unnamed::NoSni),
                _ => Target::Unnamed(Unnamed::Opaque),
            };
            let is_http = *protocol == WireProtocol::Http;
            Call {
                plugin: if is_http { Plugin::Http } else { Plugin::Tcp },
                protocol: *protocol,
                target,
                address: self.address,
                port: Some(port.number()),
                connect_port: None,
                route: self.route.clone(),
                is_routed_by_name: is_http,
            }
        })
    }
}

/// The texts of one list under `mesh`, of all configurations.
fn lists(configurations: &[Configuration<'_>], key: &str) -> BTreeSet<String> {
    let lists = configurations.iter().filter_map(|one| one.node().within(&["mesh", key]));
    lists.flat_map(Node::list).filter_map(Node::text).map(str::to_owned).collect()
}

/// An address of the prefix that no longer prefix holds, if there is one among those that are tried.
fn within(cidr: Cidr, all: &BTreeSet<Cidr>) -> IpAddr {
    let longer: Vec<&Cidr> = all.iter().filter(|other| other.length() > cidr.length()).collect();
    let candidates = (0..64_u32).map(|step| match cidr.base() {
        IpAddr::V4(base) => {
            let host = u32::MAX.checked_shr(u32::from(cidr.length())).unwrap_or(0);
            IpAddr::V4((base.to_bits() | (host - host / 64 * step.min(63))).into())
        }
        IpAddr::V6(base) => {
            let host = u128::MAX.checked_shr(u32::from(cidr.length())).unwrap_or(0);
            IpAddr::V6((base.to_bits() | (host - host / 64 * u128::from(step.min(63)))).into())
        }
    });
    let mut free =
        candidates.filter(|address| cidr.contains(*address) && !longer.iter().any(|one| one.contains(*address)));
    free.next().unwrap_or_else(|| cidr.base())
}

/// A sidecar for each way in which overrides and namespaces tell sidecars apart, the first for all others.
/// And how many more there are than [`MAX_NODES`].
fn nodes(configurations: &[Configuration<'_>], root_namespace: &str) -> (Vec<(String, KnownNode)>, usize) {
    let mut nodes = vec![(String::new(), KnownNode::default())];
    let mut known = BTreeSet::from([describe(&KnownNode::default())]);
    let mut add = |node: KnownNode| {
        let name = describe(&node);
        if known.insert(name.clone()) && nodes.len() < MAX_NODES {
            nodes.push((name, node));
        }
    };
    for configuration in configurations {
        let own = Some(configuration.object.namespace()).filter(|own| !own.is_empty() && *own != root_namespace);
        let selected = configuration.selector();
        if own.is_some() || !selected.is_empty() {
            add(node(own, None, selected.iter()));
        }
        for criteria in configuration.criteria() {
            let namespaces = criteria.namespaces.unwrap_or_default().into_iter().map(Some);
            let namespaces: Vec<Option<&str>> = if namespaces.len() == 0 { vec![own] } else { namespaces.collect() };
            let workloads = criteria.workloads.unwrap_or_default().into_iter().map(Some);
            let workloads: Vec<Option<&str>> = if workloads.len() == 0 { vec![None] } else { workloads.collect() };
            for namespace in &namespaces {
                for workload in &workloads {
                    add(node(*namespace, *workload, selected.iter().chain(&criteria.labels)));
                }
            }
        }
    }
    let more = known.len().saturating_sub(MAX_NODES);
    (nodes, more)
}

fn node<'a>(
    namespace: Option<&str>,
    workload: Option<&str>,
    labels: impl Iterator<Item = (&'a &'a str, &'a &'a str)>,
) -> KnownNode {
    KnownNode {
        namespace: namespace.map(str::to_owned),
        workload: workload.map(str::to_owned),
        labels: labels.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

fn describe(node: &KnownNode) -> String {
    let mut parts = Vec::new();
    if let Some(namespace) = &node.namespace {
        parts.push(format!("namespace {namespace}"));
    }
    if let Some(workload) = &node.workload {
        parts.push(format!("workload {workload}"));
    }
    parts.extend(node.labels.iter().map(|(key, value)| format!("{key}={value}")));
    if parts.is_empty() { "any other".to_owned() } else { parts.join(" ") }
}
