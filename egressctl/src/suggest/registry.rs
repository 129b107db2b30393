//! Suggestions as entries of a plugin configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::{Value, json};

use super::Scope;
use super::rows::{Key, Row, Rows, host};
use super::wanted::{Protocol, Wish};
use crate::access_log::{Span, count};
use crate::failure::Result;
use crate::output::{Format, document};

/// One entry: a host or address, and the ports that it was called on.
#[derive(Debug)]
pub struct Proposed {
    /// The host or address.
    pub destination: Wish,
    /// The same as text.
    pub text: String,
    /// Ports with their protocols.
    pub ports: BTreeSet<(u16, Protocol)>,
    /// Who called it.
    pub workloads: BTreeSet<String>,
    /// How often and when.
    pub row: Row,
}

/// The entries for each namespace and workload, empty being any.
#[must_use]
pub fn proposed(rows: &Rows, scope: Scope) -> BTreeMap<(String, String), Vec<Proposed>> {
    let mut groups: BTreeMap<(String, String), BTreeMap<Wish, Proposed>> = BTreeMap::new();
    for (key, row) in rows.rows.iter().filter(|(key, _)| scope.knows(key)) {
        let (namespace, workload) = scope.of(key);
        let group = groups.entry((namespace.to_owned(), workload.to_owned())).or_default();
        let known = group.entry(key.wanted.destination.clone());
        let entry = known.and_modify(|known| known.row.merge(row.clone())).or_insert_with(|| start(key, row));
        entry.ports.insert((key.wanted.port, key.wanted.protocol));
        entry.workloads.insert(key.workload.clone());
    }
    groups.into_iter().map(|(caller, entries)| (caller, entries.into_values().collect())).collect()
}

fn start(key: &Key, row: &Row) -> Proposed {
    Proposed {
        destination: key.wanted.destination.clone(),
        text: host(&key.wanted),
        ports: BTreeSet::new(),
        workloads: BTreeSet::new(),
        row: row.clone(),
    }
}

/// Writes a configuration with nothing but these entries, to be added to the one that is there: lists add up.
///
/// # Errors
///
/// The output cannot be written.
pub fn write(rows: &Rows, scope: Scope, format: Format, out: &mut dyn Write) -> Result<()> {
    let groups = proposed(rows, scope);
    if format == Format::Json {
        return document(out, format, &configuration(&groups));
    }
    if groups.is_empty() {
        return Ok(writeln!(out, "{{}}")?);
    }
    if scope == Scope::Mesh {
        writeln!(out, "registry:")?;
        for entry in groups.values().flatten() {
            write_entry(entry, "", out)?;
        }
        return Ok(());
    }
    writeln!(out, "overrides:")?;
    for ((namespace, workload), entries) in &groups {
        writeln!(out, "- match:\n    namespaces: [{}]", quoted(namespace))?;
        if !workload.is_empty() {
            writeln!(out, "    workloads: [{}]", quoted(workload))?;
        }
        writeln!(out, "  registry:")?;
        for entry in entries {
            write_entry(entry, "  ", out)?;
        }
    }
    Ok(())
}

/// The configuration as a value.
#[must_use]
pub fn configuration(groups: &BTreeMap<(String, String), Vec<Proposed>>) -> Value {
    let mut registry = Vec::new();
    let mut overrides = Vec::new();
    for ((namespace, workload), entries) in groups {
        let entries: Vec<Value> = entries.iter().map(entry_value).collect();
        match (namespace.as_str(), workload.as_str()) {
            ("", _) => registry.extend(entries),
            (namespace, "") => overrides.push(json!({"match": {"namespaces": [namespace]}, "registry": entries})),
            (namespace, workload) => overrides
                .push(json!({"match": {"namespaces": [namespace], "workloads": [workload]}, "registry": entries})),
        }
    }
    let mut configuration = serde_json::Map::new();
    for (field, list) in [("registry", registry), ("overrides", overrides)] {
        if !list.is_empty() {
            configuration.insert(field.to_owned(), Value::Array(list));
        }
    }
    Value::Object(configuration)
}

fn entry_value(entry: &Proposed) -> Value {
    let ports: Vec<Value> =
        entry.ports.iter().map(|(number, protocol)| json!({"number": number, "protocol": protocol.as_str()})).collect();
    json!({list_of(&entry.destination): [entry.text], "ports": ports})
}

fn list_of(destination: &Wish) -> &'static str {
    match destination {
        Wish::Host(_) => "hosts",
        Wish::Address(_) => "addresses",
    }
}

fn write_entry(entry: &Proposed, indent: &str, out: &mut dyn Write) -> Result<()> {
    let seen = entry.row.seen;
    let span = Span { calls: seen.calls, first: seen.first, last: seen.last };
    let assumed = if entry.row.is_port_assumed { "; the port is assumed" } else { "" };
    let workloads: Vec<String> = entry.workloads.iter().map(|name| plain(name)).collect();
    writeln!(
        out,
        "{indent}# {}{span} by {}: {}{assumed}",
        count(seen.calls, "call"),
        workloads.join(", "),
        entry.row.reason()
    )?;
    writeln!(out, "{indent}- {}: [{}]", list_of(&entry.destination), quoted(&entry.text))?;
    writeln!(out, "{indent}  ports:")?;
    for (number, protocol) in &entry.ports {
        writeln!(out, "{indent}  - {{number: {number}, protocol: {}}}", protocol.as_str())?;
    }
    Ok(())
}

/// A text of JSON is one of YAML. Names are of a log, where anything may stand.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name in a comment, which must not end it.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().map(|c| if is_plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
