//! A ServiceEntry as entries of the registry: which fields become what, and what the filter cannot do as Istio does it.

use std::collections::BTreeSet;

use egress_filter::address::Cidr;
use egress_filter::name::HostName;
use egress_filter::pattern::HostPattern;
use egress_filter::registry::Family;
use serde_json::{Map, Value, json};

use super::finding::Findings;
use crate::service_entry::{Port, PortProtocol, ServiceEntry};

/// The longest `name` of an entry, in bytes.
const MAX_ENTRY_NAME: usize = egress_filter::name::MAX_NAME;

/// A ServiceEntry with `location: MESH_EXTERNAL` whose hosts the filter takes and that has a port for it.
#[derive(Debug)]
pub struct External<'a> {
    /// The ServiceEntry.
    pub entry: ServiceEntry<'a>,
    /// Its ports without UDP; at least one.
    pub ports: Vec<Port<'a>>,
}

impl<'a> External<'a> {
    /// Takes what the filter can take; `None` where that is nothing, which is warned of, or where a host is a problem.
    pub fn new(entry: ServiceEntry<'a>, findings: &mut Findings) -> Option<Self> {
        let object = entry.object;
        let mut is_valid = true;
        for (index, host) in entry.hosts.iter().enumerate() {
            if let Err(invalid) = HostPattern::from_config(host.text) {
                findings.problem(object, host.node, format!("spec.hosts[{index}]"), invalid);
                is_valid = false;
            }
        }
        if !is_valid {
            return None;
        }
        if entry.ports.is_empty() {
            let message = "there is none, so Istio opens none for it; it is left out. Add the ports that it is for";
            findings.warn(object, object.spec().unwrap_or(object.node), "spec.ports", message);
            return None;
        }
        let is_udp = |port: &Port<'_>| port.protocol == PortProtocol::Udp;
        let (udp, ports): (Vec<Port<'a>>, Vec<_>) = entry.ports.iter().copied().partition(is_udp);
        for port in udp {
            let rest = if ports.is_empty() { "; without another port the whole is left out" } else { "" };
            let message = format!("UDP port {}: sidecars do not see UDP, so it is left out{rest}", port.number);
            findings.warn(object, port.node, "spec.ports", message);
        }
        (!ports.is_empty()).then_some(External { entry, ports })
    }

    /// The entries for some hosts on some of the ports each: `pieces` are sorted pairs of a position in the hosts and one
    /// in the ports. Hosts with the same ports are one entry. `tls_ports` are those of [`tls_ports`].
    #[must_use]
    pub fn render(&self, pieces: &[(usize, usize)], tls_ports: &BTreeSet<u16>) -> Vec<Value> {
        let mut groups: Vec<(Vec<usize>, Vec<&str>)> = Vec::new();
        for of_host in pieces.chunk_by(|a, b| a.0 == b.0) {
            let ports: Vec<usize> = of_host.iter().map(|piece| piece.1).collect();
            let host = of_host.first().and_then(|piece| self.entry.hosts.get(piece.0));
            let Some(host) = host.map(|host| host.text) else {
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == ports) {
                Some((_, hosts)) => hosts.push(host),
                None => groups.push((ports, vec![host])),
            }
        }
        groups.into_iter().map(|(ports, hosts)| self.render_group(&ports, &hosts, tls_ports)).collect()
    }

    fn render_group(&self, ports: &[usize], hosts: &[&str], tls_ports: &BTreeSet<u16>) -> Value {
        let mut name = self.entry.name().into_owned();
        if name.len() > MAX_ENTRY_NAME {
            self.entry.object.name().clone_into(&mut name);
        }
        let mut fields = Map::new();
        fields.insert("name".to_owned(), name.into());
        fields.insert("hosts".to_owned(), json!(hosts));
        if !self.entry.addresses.is_empty() {
            let addresses: Vec<&str> = self.entry.addresses.iter().map(|address| address.text).collect();
            fields.insert("addresses".to_owned(), json!(addresses));
        }
        let mut lines = Vec::new();
        for port in ports.iter().filter_map(|&port| self.ports.get(port)) {
            lines.push(match port.protocol {
                PortProtocol::Named { name, .. } => json!({"number": port.number, "protocol": name}),
                PortProtocol::Any | PortProtocol::Udp => json!({"number": port.number}),
            });
            // Where Envoy reads the SNI, the filter goes by the name alone, which a TCP port does not have: this line does.
            if self.entry.addresses.is_empty() && is_tcp(port) && tls_ports.contains(&port.number) {
                lines.push(json!({"number": port.number}));
            }
        }
        fields.insert("ports".to_owned(), lines.into());
        Value::Object(fields)
    }

    /// Warns of what the filter does otherwise than Istio, once for each kind. `tls_ports` are those of [`tls_ports`].
    pub fn warn(&self, tls_ports: &BTreeSet<u16>, findings: &mut Findings) {
        let object = self.entry.object;
        let of = |wanted: &dyn Fn(PortProtocol) -> bool| -> Vec<Port<'a>> {
            self.ports.iter().filter(|port| wanted(port.protocol)).copied().collect()
        };
        let has_addresses = !self.entry.addresses.is_empty();
        let tcp = of(&|protocol| protocol.family() == Some(Family::Tcp));
        if let (Some(first), false) = (tcp.first(), has_addresses) {
            let message = format!(
                "{} without addresses: any address and any name may be reached there, as in Istio; add spec.addresses",
                numbers("TCP port", &tcp)
            );
            findings.warn(object, first.node, "spec.ports", message);
        }
        // An address of its own has a listener of its own, where nothing reads the SNI.
        let shares_listeners = !has_addresses || self.entry.addresses.iter().any(|address| !is_single(address.cidr));
        let shared: Vec<Port<'a>> = tcp.into_iter().filter(|port| tls_ports.contains(&port.number)).collect();
        if let (Some(first), true) = (shared.first(), shares_listeners) {
            let which = if has_addresses { "TLS with an SNI" } else { "TLS for other names than spec.hosts" };
            let message = format!(
                "{} is one for TLS in another ServiceEntry, so Envoy reads the SNI there: {which} is denied, where Istio lets \
                 it pass",
                numbers("port", &shared)
            );
            findings.warn(object, first.node, "spec.ports", message);
        }
        let any = of(&|protocol| protocol == PortProtocol::Any);
        if let (Some(first), false) = (any.first(), has_addresses) {
            let message = format!(
                "{} without protocol and addresses: Istio lets any bytes pass there, the filter what is HTTP or TLS for \
                 these hosts; add the protocol, or spec.addresses",
                numbers("port", &any)
            );
            findings.warn(object, first.node, "spec.ports", message);
        }
        let by_name = of(&|protocol| protocol == PortProtocol::Any || protocol.family() == Some(Family::Tls));
        if let (Some(address), false) =
            (self.entry.addresses.iter().find(|address| is_single(address.cidr)), by_name.is_empty())
        {
            let message = format!(
                "{}: Istio takes TLS to this address whatever its SNI says; the filter wants one of spec.hosts there, or no \
                 SNI at all",
                numbers("port", &by_name)
            );
            findings.warn(object, address.node, "spec.addresses", message);
        }
        for (index, host) in self.entry.hosts.iter().enumerate() {
            if host.text.starts_with('*') && !host.text.starts_with("*.") {
                let message = "Istio takes any text before this, dots included; the filter takes no dot there";
                findings.warn(object, host.node, format!("spec.hosts[{index}]"), message);
            }
        }
    }

    /// Warns of hosts that lie under a domain of the mesh, where the route alone allows.
    pub fn warn_of_domains(&self, domains: &[HostName<'_>], findings: &mut Findings) {
        for (index, host) in self.entry.hosts.iter().enumerate() {
            let Ok(pattern) = HostPattern::from_config(host.text) else {
                continue;
            };
            let name = match &pattern {
                HostPattern::Exact(name) | HostPattern::Suffix(name) => Some(name.clone()),
                HostPattern::Glob(glob) => HostName::from_config(glob.suffix()).ok(),
            };
            if let Some(domain) = domains.iter().find(|domain| name.as_ref().is_some_and(|name| name.is_within(domain)))
            {
                let message = format!(
                    "it lies under {:?}, which is inside the mesh: the filter allows whatever Istio routes to it, on any \
                     port; take that name out of mesh.domains, or set location: MESH_INTERNAL here, too",
                    domain.as_str()
                );
                findings.warn(self.entry.object, host.node, format!("spec.hosts[{index}]"), message);
            }
        }
    }
}

/// The hosts of a ServiceEntry with `location: MESH_INTERNAL` as domains of the mesh: `*.x` is `x`.
pub fn internal_domains(entry: &ServiceEntry<'_>, findings: &mut Findings) -> Vec<String> {
    let mut domains = Vec::new();
    for (index, host) in entry.hosts.iter().enumerate() {
        let text = host.text.strip_prefix("*.").unwrap_or(host.text);
        match HostName::from_config(text) {
            Ok(_) => domains.push(text.to_owned()),
            Err(invalid) => findings.problem(entry.object, host.node, format!("spec.hosts[{index}]"), invalid),
        }
    }
    domains
}

/// The ports at which Envoy reads the SNI, because one of the ServiceEntries has TLS there or leaves the protocol open.
pub fn tls_ports(externals: &[External<'_>]) -> BTreeSet<u16> {
    let reads_sni =
        |port: &&Port<'_>| port.protocol == PortProtocol::Any || port.protocol.family() == Some(Family::Tls);
    externals.iter().flat_map(|external| &external.ports).filter(reads_sni).map(|port| port.number).collect()
}

fn is_tcp(port: &Port<'_>) -> bool {
    port.protocol.family() == Some(Family::Tcp)
}

fn is_single(cidr: Cidr) -> bool {
    cidr.length() == if cidr.base().is_ipv4() { 32 } else { 128 }
}

/// `TCP port 3306`, or `TCP ports 3306, 6379`.
fn numbers(what: &str, ports: &[Port<'_>]) -> String {
    let numbers: Vec<String> = ports.iter().map(|port| port.number.to_string()).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("{what}{plural} {}", numbers.join(", "))
}
