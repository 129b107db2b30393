//! ServiceEntries: where what Istio makes of them is not what their author may expect, and how they go with the registry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use egress_filter::address::Cidr;
use egress_filter::pattern::HostPattern;
use egress_filter::registry::{Family, Protocol};

use super::entries::Parsed;
use super::finding::Findings;
use super::rule;
use crate::configuration::{Configuration, List};
use crate::document::{Node, Value};
use crate::object::{Kind, Object};

/// Looks at each ServiceEntry by itself.
pub fn check(objects: &[Object<'_>], findings: &mut Findings) {
    for object in objects.iter().filter(|object| object.kind == Kind::ServiceEntry) {
        let Some(spec) = object.spec() else { continue };
        let external = spec.get("location").and_then(Node::text) != Some("MESH_INTERNAL");
        let has_addresses = !list(spec, "addresses").is_empty();
        for node in list(spec, "hosts") {
            host(object, node, findings);
        }
        for port in list(spec, "ports") {
            let family = port.get("protocol").and_then(Node::text).and_then(|text| text.parse::<Protocol>().ok());
            match family.map(Protocol::family) {
                Some(Family::Tcp) if !has_addresses && external => {
                    let number = number(port).map(|number| number.to_string()).unwrap_or_default();
                    let message = format!(
                        "port {number}: TCP goes by address, so this takes the port at every address; give it addresses"
                    );
                    findings.add(&rule::HOSTS_IGNORED, object, port, message);
                }
                Some(Family::Tls) if has_addresses && external => {
                    let message =
                        "with addresses, Istio takes every SNI for this; the filter still goes by SNI".to_owned();
                    findings.add(&rule::VIP_BEFORE_SNI, object, port, message);
                }
                _ => {}
            }
        }
        let resolution = spec.get("resolution").and_then(Node::text).unwrap_or("NONE");
        if external && resolution == "NONE" && list(spec, "hosts").iter().any(|host| !is_wildcard(host)) {
            let at = spec.get("resolution").unwrap_or(spec);
            let message = "Envoy connects to the address that the client chose, whatever name it gives; with resolution DNS it \
                           resolves the name itself";
            findings.add(&rule::RESOLUTION_NONE, object, at, message.to_owned());
        }
        if spec.get("exportTo").is_none() {
            let message =
                "it is for every namespace; say exportTo: [\".\"] for its own, [\"*\"] if all are meant".to_owned();
            findings.add(&rule::EXPORTED, object, spec, message);
        }
    }
}

fn host(object: &Object<'_>, node: &Node, findings: &mut Findings) {
    let Some(text) = node.text() else { return };
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let message = format!("{text:?}: write {:?}", text.to_ascii_lowercase());
        findings.add(&rule::CASE, object, node, message);
    }
    if text.starts_with('*') && !text.starts_with("*.") && text != "*" {
        let whole = text.trim_start_matches('*').trim_start_matches(['-', '.']);
        let message = format!("{text:?}: write \"*.{whole}\", or name the hosts");
        findings.add(&rule::PARTIAL_WILDCARD, object, node, message);
    } else if let Err(invalid) = HostPattern::from_config(text) {
        let message = format!("{text:?}: a registry cannot have this host: {invalid}");
        findings.add(&rule::REFUSED, object, node, message);
    }
}

/// The hosts of all ServiceEntries, so that none of many is compared with each of many.
#[derive(Debug, Default)]
pub struct Hosts {
    /// In normal form; `true` if Envoy resolves the name itself.
    patterns: BTreeMap<String, bool>,
}

impl Hosts {
    /// Those of all ServiceEntries among the objects.
    #[must_use]
    pub fn of(objects: &[Object<'_>]) -> Self {
        let mut hosts = Hosts::default();
        for spec in specs(objects) {
            let resolves = spec.get("resolution").and_then(Node::text).is_some_and(|resolution| resolution != "NONE");
            for host in list(spec, "hosts") {
                if let Some(Ok(pattern)) = host.text().map(HostPattern::from_config) {
                    *hosts.patterns.entry(pattern.to_string()).or_default() |= resolves;
                }
            }
        }
        hosts
    }

    /// Whether some ServiceEntry has what the pattern matches.
    #[must_use]
    pub fn have(&self, pattern: &HostPattern<'_>) -> bool {
        self.find(pattern).next().is_some()
    }

    /// Whether some ServiceEntry has Envoy resolve it, so that a spoofed name leads to its own address.
    #[must_use]
    pub fn resolve(&self, pattern: &HostPattern<'_>) -> bool {
        self.find(pattern).any(|resolves| resolves)
    }

    fn find(&self, pattern: &HostPattern<'_>) -> impl Iterator<Item = bool> {
        let text = pattern.to_string();
        let mut names = vec![text.clone()];
        let mut rest = text.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            names.push(format!("*.{parent}"));
            rest = parent;
        }
        names.into_iter().filter_map(|name| self.patterns.get(&name).copied())
    }
}

/// Under Istio's own REGISTRY_ONLY every listed host needs a ServiceEntry.
pub fn check_registry_only(
    objects: &[Object<'_>],
    hosts: &Hosts,
    configuration: &Configuration<'_>,
    entries: &[Parsed<'_>],
    findings: &mut Findings,
) {
    if !objects.iter().any(is_registry_only) {
        return;
    }
    for parsed in entries.iter().filter(|parsed| parsed.entry.list == List::Registry) {
        for (pattern, node) in &parsed.hosts {
            if !hosts.have(pattern) {
                let message = format!(
                    "\"{pattern}\": the mesh is REGISTRY_ONLY and no ServiceEntry here has it; add one, or set the mesh to ALLOW_ANY"
                );
                findings.add(&rule::ISTIO_DENIES, &configuration.object, node, message);
            }
        }
    }
}

/// The mesh's ConfigMap with `outboundTrafficPolicy.mode: REGISTRY_ONLY`.
fn is_registry_only(object: &Object<'_>) -> bool {
    if object.kind != Kind::ConfigMap {
        return false;
    }
    let Some(mesh) = object.node.within(&["data", "mesh"]).and_then(Node::text) else {
        return false;
    };
    let roots = crate::document::read(mesh).unwrap_or_default();
    let mode = |root: &Node| root.within(&["outboundTrafficPolicy", "mode"]).and_then(Node::text).map(str::to_owned);
    roots.iter().find_map(mode).as_deref() == Some("REGISTRY_ONLY")
}

/// With `ON_DOWNSTREAM_DATA`, a server that speaks first is reached only by a ServiceEntry.
pub fn check_server_first(
    objects: &[Object<'_>],
    configuration: &Configuration<'_>,
    entries: &[Parsed<'_>],
    findings: &mut Findings,
) {
    let is_lazy =
        |object: &&Object<'_>| object.kind == Kind::EnvoyFilter && mentions(object.node, "ON_DOWNSTREAM_DATA");
    let Some(lazy) = objects.iter().find(is_lazy) else {
        return;
    };
    for parsed in entries.iter().filter(|parsed| parsed.entry.list == List::Registry) {
        for port in parsed.tcp_ports() {
            let missing =
                parsed.addresses.iter().find(|(cidr, _)| !specs(objects).any(|spec| serves(spec, *cidr, port)));
            if let Some((cidr, node)) = missing {
                let message = format!(
                    "{cidr} port {port}: {lazy} makes Envoy wait for the client's bytes, so a server that speaks first, such as \
                     MySQL or SMTP, is never reached; give it a ServiceEntry"
                );
                findings.add(&rule::SERVER_FIRST, &configuration.object, node, message);
            }
        }
    }
}

fn serves(spec: &Node, cidr: Cidr, port: u16) -> bool {
    let address: IpAddr = cidr.base();
    list(spec, "ports").iter().any(|one| number(one) == Some(port))
        && list(spec, "addresses")
            .iter()
            .filter_map(|node| node.text()?.parse::<Cidr>().ok())
            .any(|own| own.contains(address) && own.length() <= cidr.length())
}

fn specs<'a>(objects: &[Object<'a>]) -> impl Iterator<Item = &'a Node> {
    objects.iter().filter(|object| object.kind == Kind::ServiceEntry).filter_map(Object::spec)
}

fn list<'a>(spec: &'a Node, key: &str) -> &'a [Node] {
    spec.get(key).map(Node::list).unwrap_or_default()
}

fn is_wildcard(host: &Node) -> bool {
    host.text().is_some_and(|text| text.starts_with('*'))
}

fn number(port: &Node) -> Option<u16> {
    match &port.get("number")?.value {
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        _ => None,
    }
}

fn mentions(node: &Node, text: &str) -> bool {
    node.text() == Some(text)
        || node.list().iter().any(|element| mentions(element, text))
        || node.fields().iter().any(|field| mentions(&field.value, text))
}
