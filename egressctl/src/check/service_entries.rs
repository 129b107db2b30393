//! ServiceEntries: where what Istio makes of them is not what their author may expect, and how they go with the registry.

use std::collections::BTreeMap;

use egress_filter::address::Cidr;
use egress_filter::pattern::HostPattern;
use egress_filter::registry::Family;

use super::entries::Parsed;
use super::finding::Findings;
use super::rule;
use crate::configuration::{Configuration, List};
use crate::document::Node;
use crate::field::Text;
use crate::object::{Kind, Object};
use crate::service_entry::{Location, Resolution, ServiceEntry};

/// Reads all ServiceEntries; what is wrong with one is a finding, and the rest goes on without it.
#[must_use]
pub fn read<'a>(objects: &[Object<'a>], findings: &mut Findings) -> Vec<ServiceEntry<'a>> {
    let mut entries = Vec::new();
    for object in objects {
        match ServiceEntry::of(*object) {
            Ok(entry) => entries.extend(entry),
            Err(invalid) => {
                for problem in invalid.problems {
                    let value = problem.value.map(|value| format!("{value}: ")).unwrap_or_default();
                    let message = format!("{}: {value}{}", problem.path, problem.message);
                    findings.add_at(&rule::INVALID_ENTRY, object, problem.location, message);
                }
            }
        }
    }
    entries
}

/// Looks at each ServiceEntry by itself.
pub fn check(entries: &[ServiceEntry<'_>], findings: &mut Findings) {
    for entry in entries {
        let object = &entry.object;
        let spec = object.spec().unwrap_or(object.node);
        let external = entry.location == Location::MeshExternal;
        for host_text in &entry.hosts {
            host(object, host_text, findings);
        }
        for port in &entry.ports {
            match port.protocol.family() {
                Some(Family::Tcp) if entry.addresses.is_empty() && external => {
                    let message = format!(
                        "port {}: TCP goes by address, so this takes the port at every address; give it addresses",
                        port.number
                    );
                    findings.add(&rule::HOSTS_IGNORED, object, port.node, message);
                }
                Some(Family::Tls) if !entry.addresses.is_empty() && external => {
                    let message =
                        "with addresses, Istio takes every SNI for this; the filter still goes by SNI".to_owned();
                    findings.add(&rule::VIP_BEFORE_SNI, object, port.node, message);
                }
                _ => {}
            }
        }
        // On TCP ports the name does not count.
        let goes_by_name = entry.ports.iter().any(|port| port.protocol.family() != Some(Family::Tcp));
        let has_name = goes_by_name && entry.hosts.iter().any(|host| !host.text.starts_with('*'));
        if external && entry.resolution == Resolution::None && has_name {
            let at = spec.get("resolution").unwrap_or(spec);
            let message = "Envoy connects to the address that the client chose, whatever name it gives; with resolution DNS it \
                           resolves the name itself";
            findings.add(&rule::RESOLUTION_NONE, object, at, message.to_owned());
        }
        if entry.export_to.is_empty() {
            let message =
                "it is for every namespace; say exportTo: [\".\"] for its own, [\"*\"] if all are meant".to_owned();
            findings.add(&rule::EXPORTED, object, spec, message);
        }
    }
}

fn host(object: &Object<'_>, &Text { text, node }: &Text<'_>, findings: &mut Findings) {
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
    /// Those of these ServiceEntries.
    #[must_use]
    pub fn of(entries: &[ServiceEntry<'_>]) -> Self {
        let mut hosts = Hosts::default();
        for entry in entries {
            for host in &entry.hosts {
                if let Ok(pattern) = HostPattern::from_config(host.text) {
                    *hosts.patterns.entry(pattern.to_string()).or_default() |= entry.resolution != Resolution::None;
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
    services: &[ServiceEntry<'_>],
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
                parsed.addresses.iter().find(|(cidr, _)| !services.iter().any(|service| serves(service, *cidr, port)));
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

fn serves(service: &ServiceEntry<'_>, cidr: Cidr, port: u16) -> bool {
    let holds = |own: Cidr| own.contains(cidr.base()) && own.length() <= cidr.length();
    service.ports.iter().any(|one| one.number == port) && service.addresses.iter().any(|own| holds(own.cidr))
}

fn mentions(node: &Node, text: &str) -> bool {
    node.text() == Some(text)
        || node.list().iter().any(|element| mentions(element, text))
        || node.fields().iter().any(|field| mentions(&field.value, text))
}
