//! Suggestions as ServiceEntries, so that Istio itself knows the hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::{Value, json};

use super::Scope;
use super::registry::{Proposed, proposed};
use super::rows::Rows;
use super::wanted::{Protocol, Wish};
use crate::failure::Result;
use crate::output::{Format, document, yaml};

/// Writes a ServiceEntry for each host or address of each namespace; returns the hosts that Istio takes in none.
///
/// # Errors
///
/// The output cannot be written.
pub fn write(
    rows: &Rows,
    scope: Scope,
    root_namespace: &str,
    format: Format,
    out: &mut dyn Write,
) -> Result<BTreeSet<String>> {
    let (objects, left_out) = service_entries(rows, scope, root_namespace);
    if format == Format::Json {
        document(out, format, &json!({"apiVersion": "v1", "kind": "List", "items": objects}))?;
        return Ok(left_out);
    }
    for (position, object) in objects.iter().enumerate() {
        let separator = if position == 0 { "" } else { "---\n" };
        write!(out, "{separator}{}", yaml(object)?)?;
    }
    Ok(left_out)
}

fn service_entries(rows: &Rows, scope: Scope, root_namespace: &str) -> (Vec<Value>, BTreeSet<String>) {
    let mut objects = Vec::new();
    let mut left_out = BTreeSet::new();
    for ((namespace, _), entries) in proposed(rows, scope) {
        let (namespace, export) = match namespace.as_str() {
            "" => (root_namespace.to_owned(), "*"),
            _ => (namespace, "."),
        };
        let mut names = BTreeSet::new();
        for entry in &entries {
            if matches!(&entry.destination, Wish::Host(host) if !istio_takes(host)) {
                left_out.insert(entry.text.clone());
                continue;
            }
            for ports in without_clashes(&entry.ports) {
                let name = name(&entry.text, &mut names);
                objects.push(service_entry(entry, &ports, &name, &namespace, export));
            }
        }
    }
    (objects, left_out)
}

/// Whether Istio takes a host: its labels are those of RFC 1123, so without underscores, and hyphens only within.
fn istio_takes(host: &str) -> bool {
    let is_label = |label: &str| {
        let is_edge_fine = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let is_inside_fine = label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        is_inside_fine && is_edge_fine(label.chars().next()) && is_edge_fine(label.chars().last())
    };
    host.strip_prefix("*.").unwrap_or(host).split('.').all(is_label)
}

/// A port number may stand in a ServiceEntry once, with one protocol: what was called on one port in two protocols becomes
/// two objects.
fn without_clashes(ports: &BTreeSet<(u16, Protocol)>) -> Vec<Vec<(u16, Protocol)>> {
    let mut objects: Vec<BTreeMap<u16, Protocol>> = Vec::new();
    for (number, protocol) in ports {
        match objects.iter_mut().find(|object| !object.contains_key(number)) {
            Some(object) => {
                object.insert(*number, *protocol);
            }
            None => objects.push(BTreeMap::from([(*number, *protocol)])),
        }
    }
    objects.into_iter().map(|object| object.into_iter().collect()).collect()
}

fn service_entry(entry: &Proposed, ports: &[(u16, Protocol)], name: &str, namespace: &str, export: &str) -> Value {
    let seen = entry.row.seen;
    let mut annotations = serde_json::Map::new();
    let mut annotate = |key: &str, text: String| annotations.insert(format!("egressctl/{key}"), text.into());
    annotate("calls", seen.calls.to_string());
    for (key, time) in [("first-seen", seen.first), ("last-seen", seen.last)] {
        if let Some(time) = time {
            annotate(key, time.to_string());
        }
    }
    annotate("reason", entry.row.reason());
    annotate("workloads", entry.workloads.iter().cloned().collect::<Vec<_>>().join(","));
    if entry.row.is_port_assumed {
        annotate("port", "assumed: it was not seen".to_owned());
    }
    let mut spec = serde_json::Map::new();
    let mut set = |key: &str, value: Value| spec.insert(key.to_owned(), value);
    let resolution = match &entry.destination {
        Wish::Host(host) => {
            set("hosts", json!([host]));
            // Of a wildcard DNS cannot be asked: Envoy goes where the client goes.
            if host.starts_with('*') { "NONE" } else { "DNS" }
        }
        Wish::Address(address) => {
            annotate("host", "made up: the address alone counts".to_owned());
            // RFC 2606, section 2: a name that never is one.
            set("hosts", json!([format!("{}.egress.invalid", label(&entry.text))]));
            set("addresses", json!([address.to_string()]));
            "NONE"
        }
    };
    set("exportTo", json!([export]));
    set("location", json!("MESH_EXTERNAL"));
    set("resolution", json!(resolution));
    let port = |(number, protocol): &(u16, Protocol)| {
        let protocol = protocol.as_str();
        json!({"number": number, "name": format!("{}-{number}", protocol.to_lowercase()), "protocol": protocol})
    };
    set("ports", ports.iter().map(port).collect());
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
        "spec": spec,
    })
}

/// The longest DNS label (RFC 1123), which any tool takes for a name.
const MAX_LABEL: usize = 63;

/// A name for an object that no other has: that of the host, as far as it can be.
fn name(text: &str, taken: &mut BTreeSet<String>) -> String {
    let base = label(text);
    let mut number = 1;
    loop {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let room = MAX_LABEL - suffix.len();
        let name = format!("{}{suffix}", base.get(..room.min(base.len())).unwrap_or_default().trim_end_matches('-'));
        if taken.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

/// A DNS label for a host or address.
fn label(text: &str) -> String {
    let with_words = match text.strip_prefix("*.") {
        Some(parent) => format!("wildcard-{parent}"),
        None if text.parse::<std::net::IpAddr>().is_ok() => format!("ip-{text}"),
        None => text.to_owned(),
    };
    let replaced: String = with_words.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let trimmed = replaced.trim_matches('-').to_lowercase();
    trimmed.get(..MAX_LABEL.min(trimmed.len())).unwrap_or_default().trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_objects_after_hosts_and_never_two_alike() {
        let mut taken = BTreeSet::new();
        let long = format!("{}.example", "a".repeat(63));
        for (text, expected) in [
            ("api.a.example", "api-a-example"),
            ("api-a.example", "api-a-example-2"),
            ("*.saas.example", "wildcard-saas-example"),
            ("_tcp.a.example", "tcp-a-example"),
            ("192.0.2.7", "ip-192-0-2-7"),
            ("2001:db8::", "ip-2001-db8"),
            (long.as_str(), "a".repeat(63).as_str()),
            (long.as_str(), format!("{}-2", "a".repeat(61)).as_str()),
        ] {
            assert_eq!(name(text, &mut taken), expected);
        }
    }

    #[test]
    fn knows_which_hosts_istio_takes() {
        for (host, expected) in [
            ("api.a.example", true),
            ("*.a.example", true),
            ("xn--bcher-kva.example", true),
            ("under_score.example", false),
            ("-a.example", false),
            ("a-.example", false),
        ] {
            assert_eq!(istio_takes(host), expected, "{host}");
        }
    }

    #[test]
    fn gives_a_port_with_two_protocols_two_objects() {
        let ports = BTreeSet::from([(443, Protocol::Tls), (443, Protocol::Http), (80, Protocol::Http)]);
        assert_eq!(
            without_clashes(&ports),
            [vec![(80, Protocol::Http), (443, Protocol::Http)], vec![(443, Protocol::Tls)]]
        );
    }
}
