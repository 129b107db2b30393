//! What came close: entries that a reader may have taken for one that lists the destination.

use egress_filter::address::Cidr;
use egress_filter::config::KnownNode;
use egress_filter::name::HostName;
use egress_filter::pattern::HostPattern;
use egress_filter::policy::Target;
use serde::Serialize;

use crate::call::Call;
use crate::configuration::{Configuration, Criteria, Entry, List};
use crate::document::{Node, Value};

/// A pattern that came close, and why it is not enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Near {
    /// As it stands there.
    pub pattern: String,
    /// Such as `registry[3].hosts[0]`.
    pub path: String,
    /// `FILE:LINE:COLUMN`.
    pub location: String,
    /// Why it does not match or does not permit.
    pub but: String,
    #[serde(skip)]
    rank: (u8, usize),
}

/// How many are shown.
const SHOWN: usize = 3;

/// The nearest patterns of the registry that decided, nearest first. If an entry matched and did not permit, only others
/// that match.
#[must_use]
pub fn nearest(
    call: &Call,
    configuration: &Configuration<'_>,
    node: &KnownNode,
    matched: Option<&Entry<'_>>,
) -> Vec<Near> {
    let mut near = Vec::new();
    let criteria = configuration.criteria();
    let matching: Vec<bool> = (0..criteria.len()).map(|position| configuration.matches(position, node)).collect();
    for entry in configuration.entries() {
        let is_told = matched.is_some_and(|told| std::ptr::eq(told.node, entry.node));
        if entry.list == List::Registry && !is_told {
            let elsewhere = entry
                .in_override
                .filter(|position| matching.get(*position) != Some(&true))
                .and_then(|position| criteria.get(position));
            add(call, configuration, &entry, elsewhere, &mut near);
        }
    }
    near.retain(|near: &Near| matched.is_none() || near.rank.0 == MATCHES);
    near.sort_by(|a, b| a.rank.cmp(&b.rank).then_with(|| a.pattern.cmp(&b.pattern)));
    near.truncate(SHOWN);
    near
}

/// The first part of the rank of a pattern that matches.
const MATCHES: u8 = 0;

fn add(
    call: &Call,
    configuration: &Configuration<'_>,
    entry: &Entry<'_>,
    elsewhere: Option<&Criteria<'_>>,
    near: &mut Vec<Near>,
) {
    let mut push = |field: &str, position: usize, node: &Node, rank, but| {
        near.push(Near {
            pattern: node.text().unwrap_or_default().to_owned(),
            path: format!("{}.{field}[{position}]", entry.path),
            location: configuration.object.document.locate(node).to_string(),
            but,
            rank,
        });
    };
    if let Target::Name(name) = &call.target {
        for (position, node) in entry.node.elements("hosts").iter().enumerate() {
            let pattern = node.text().and_then(|text| HostPattern::from_config(text).ok());
            if let Some((rank, but)) = pattern.and_then(|pattern| of_name(name, &pattern, entry, elsewhere)) {
                push("hosts", position, node, rank, but);
            }
        }
    }
    if let Some(address) = call.address {
        for (position, node) in entry.node.elements("addresses").iter().enumerate() {
            let cidr = node.text().and_then(|text| text.parse::<Cidr>().ok());
            if cidr.is_some_and(|cidr| cidr.contains(address)) {
                let but = match elsewhere {
                    Some(criteria) => format!("for {} only", sidecars(criteria)),
                    None => format!("for {}", ports(entry.node)),
                };
                push("addresses", position, node, (MATCHES, 0), but);
            }
        }
    }
}

fn of_name(
    name: &HostName<'_>,
    pattern: &HostPattern<'_>,
    entry: &Entry<'_>,
    elsewhere: Option<&Criteria<'_>>,
) -> Option<((u8, usize), String)> {
    if pattern.matches(name) {
        return Some(match elsewhere {
            Some(criteria) => ((MATCHES, 0), format!("for {} only", sidecars(criteria))),
            None => ((MATCHES, 1), format!("for {}", ports(entry.node))),
        });
    }
    let own = pattern.to_string();
    match pattern {
        HostPattern::Suffix(suffix) if suffix == name => {
            return Some(((1, 0), "a wildcard does not match the name that it is made of".to_owned()));
        }
        HostPattern::Exact(exact) if name.is_within(exact) => {
            return Some(((1, 1), "that name alone, nothing below it".to_owned()));
        }
        _ => {}
    }
    let bare = own.trim_start_matches("*.");
    let distance = strsim::levenshtein(name.as_str(), bare);
    if distance <= 1 + bare.len() / 12 {
        return Some(((2, distance), "another spelling".to_owned()));
    }
    let domain = registrable(name.as_str())?;
    (registrable(bare) == Some(domain)).then(|| ((3, distance), "another host of the same domain".to_owned()))
}

/// The domain that somebody registered: one label below the public suffix.
fn registrable(name: &str) -> Option<&str> {
    psl::domain_str(name)
}

/// `namespaces dev, qa`.
#[must_use]
pub fn sidecars(criteria: &Criteria<'_>) -> String {
    let mut parts = Vec::new();
    if let Some(namespaces) = &criteria.namespaces {
        parts.push(format!("namespaces {}", list(namespaces)));
    }
    if let Some(workloads) = &criteria.workloads {
        parts.push(format!("workloads {}", list(workloads)));
    }
    if !criteria.labels.is_empty() {
        let labels: Vec<String> = criteria.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.push(format!("labels {}", labels.join(", ")));
    }
    if parts.is_empty() { "every sidecar".to_owned() } else { parts.join(" and ") }
}

fn list(values: &[&str]) -> String {
    if values.is_empty() { "(none)".to_owned() } else { values.join(", ") }
}

/// `ports 80/HTTP, 443/TLS` of an entry, or `any port`.
#[must_use]
pub fn ports(entry: &Node) -> String {
    let ports = entry.elements("ports");
    if ports.is_empty() {
        return "any port".to_owned();
    }
    let each: Vec<String> = ports
        .iter()
        .map(|port| {
            let number = match port.get("number").map(|node| &node.value) {
                Some(Value::Number(number)) => number.to_string(),
                _ => "?".to_owned(),
            };
            match port.get("protocol").and_then(Node::text) {
                Some(protocol) => format!("{number}/{protocol}"),
                None => number,
            }
        })
        .collect();
    format!("port{} {} only", if each.len() == 1 { "" } else { "s" }, each.join(", "))
}
