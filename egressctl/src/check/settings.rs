//! A configuration as a whole: its modes, its overrides, what it takes for the mesh.

use std::net::IpAddr;

use egress_filter::address::Cidr;
use egress_filter::policy::{Enforcement, Mode, Policy};

use super::finding::Findings;
use super::rule;
use crate::configuration::{Configuration, Criteria};
use crate::document::Node;
use crate::object::Kind;

/// Looks at modes and `mesh`.
pub fn check(configuration: &Configuration<'_>, policy: &Policy, root_namespace: &str, findings: &mut Findings) {
    let object = &configuration.object;
    if policy.enforcement() == Enforcement::Report && !is_enforced_somewhere(configuration) {
        let message = "enforcement is REPORT: what would be denied is only counted".to_owned();
        findings.add(&rule::DENIES_NOTHING, object, configuration.find("enforcement"), message);
    } else if policy.enforcement() == Enforcement::Enforce
        && policy.mode() == Mode::AllowAny
        && policy.deny().is_empty()
        && !is_restricted_somewhere(configuration)
    {
        let message = "the mode is ALLOW_ANY and deny is empty: the registry only names traffic".to_owned();
        findings.add(&rule::DENIES_NOTHING, object, configuration.find("outboundTrafficPolicy.mode"), message);
    }
    let addresses = configuration.node().within(&["mesh", "addresses"]).map(Node::list).unwrap_or_default();
    let is_mesh_wide = object.kind != Kind::Configuration && ["", root_namespace].contains(&object.namespace());
    if addresses.is_empty() && is_mesh_wide && policy.mode() == Mode::RegistryOnly {
        let message = "mesh.addresses is empty: give it the cluster's pod and service ranges".to_owned();
        findings.add(&rule::NO_MESH_ADDRESSES, object, configuration.find("mesh"), message);
    }
    for node in addresses {
        let Some(cidr) = node.text().and_then(|text| text.parse::<Cidr>().ok()) else { continue };
        if cidr.contains(METADATA) {
            let message = format!("\"{cidr}\" holds 169.254.169.254, where clouds serve credentials; leave it out");
            findings.add(&rule::WIDE_MESH, object, node, message);
        } else if !is_private(&cidr) {
            let message = format!("\"{cidr}\" is not within a private range: what is sent there is never denied");
            findings.add(&rule::WIDE_MESH, object, node, message);
        }
    }
    overrides(configuration, root_namespace, findings);
}

/// Whether an override denies what the configuration itself only reports.
fn is_enforced_somewhere(configuration: &Configuration<'_>) -> bool {
    any_override(configuration, |one| one.get("enforcement").and_then(Node::text) == Some("ENFORCE"))
}

/// Whether an override takes something from what the configuration itself allows.
fn is_restricted_somewhere(configuration: &Configuration<'_>) -> bool {
    any_override(configuration, |one| {
        one.within(&["outboundTrafficPolicy", "mode"]).and_then(Node::text) == Some("REGISTRY_ONLY")
            || one.get("deny").is_some_and(|deny| !deny.list().is_empty())
    })
}

fn any_override(configuration: &Configuration<'_>, is_one: impl Fn(&Node) -> bool) -> bool {
    configuration.overrides().iter().any(is_one)
}

const METADATA: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254));

/// Within the ranges of RFC 1918, RFC 6598 and RFC 4193, or loopback.
fn is_private(cidr: &Cidr) -> bool {
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7", "::1"]
        .iter()
        .filter_map(|text| text.parse::<Cidr>().ok())
        .any(|range| range.length() <= cidr.length() && range.contains(cidr.base()))
}

fn overrides(configuration: &Configuration<'_>, root_namespace: &str, findings: &mut Findings) {
    let object = &configuration.object;
    let criteria = configuration.criteria();
    let own_namespace = Some(object.namespace()).filter(|namespace| !namespace.is_empty());
    let selector = configuration.selector();
    for (position, (part, own)) in configuration.overrides().iter().zip(&criteria).enumerate() {
        let path = format!("overrides[{position}]");
        let at = part.get("match").unwrap_or(part);
        let mut is_reached = true;
        let mut unreachable = |message: String| {
            is_reached = false;
            findings.add(&rule::UNREACHABLE_OVERRIDE, object, at, message);
        };
        if own.namespaces.as_ref().is_some_and(Vec::is_empty) {
            unreachable(format!(
                "{path}.match.namespaces is empty, so it matches no sidecar; name some or leave it out"
            ));
        } else if own.workloads.as_ref().is_some_and(Vec::is_empty) {
            unreachable(format!(
                "{path}.match.workloads is empty, so it matches no sidecar; name some or leave it out"
            ));
        } else if let Some(namespace) = own_namespace.filter(|namespace| {
            *namespace != root_namespace && own.namespaces.as_ref().is_some_and(|names| !names.contains(namespace))
        }) {
            unreachable(format!("{path} is for other namespaces, but {object} is on sidecars of {namespace:?} only"));
        } else if let Some((key, _)) =
            own.labels.iter().find(|(key, value)| selector.get(*key).is_some_and(|selected| selected != *value))
        {
            unreachable(format!("{path} asks for another value of label {key:?} than the plugin's selector"));
        } else if part.fields().iter().all(|field| field.key == "match") {
            unreachable(format!("{path} changes nothing; give it a registry, deny, enforcement or mode"));
        }
        for keys in [["enforcement"].as_slice(), &["outboundTrafficPolicy", "mode"]] {
            let Some(value) = part.within(keys).filter(|_| is_reached) else { continue };
            let later = configuration.overrides().iter().zip(&criteria).enumerate().skip(position + 1);
            let winner =
                later.into_iter().find(|(_, (other, others))| other.within(keys).is_some() && is_wider(others, own));
            if let Some((winner, _)) = winner {
                let field = keys.join(".");
                let message = format!(
                    "{path}.{field} never counts: overrides[{winner}] is for the same sidecars, comes later and sets it, \
                     too; change their order"
                );
                findings.add(&rule::OVERRULED, object, value, message);
            }
        }
    }
}

/// Whether `a` matches every sidecar that `b` matches.
fn is_wider(a: &Criteria<'_>, b: &Criteria<'_>) -> bool {
    let holds = |a: &Option<Vec<&str>>, b: &Option<Vec<&str>>| match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => b.iter().all(|value| a.contains(value)),
    };
    holds(&a.namespaces, &b.namespaces)
        && holds(&a.workloads, &b.workloads)
        && a.labels.iter().all(|(key, value)| b.labels.get(key) == Some(value))
}
