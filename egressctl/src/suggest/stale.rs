//! Entries that no call needed.
//!
//! An entry is used if one of its hosts or addresses is what the policy lists a call under. A host that only calls use which
//! a more specific one has already is not used: it could go.

use std::collections::BTreeMap;
use std::io::Write;

use egress_filter::address::Cidr;
use egress_filter::pattern::HostPattern;
use egress_filter::policy::Reason;
use serde::Serialize;

use crate::access_log::{LoggedCall, Scanned, Seen, Skip, Span, count};
use crate::configuration::{Configuration, Criteria, List, entry_name};
use crate::document::Node;
use crate::enforced::Enforced;
use crate::failure::Result;
use crate::output::{Format, Table, document};

/// How much each host and address of the registries is used.
#[derive(Debug)]
pub struct Usage {
    patterns: Vec<Pattern>,
    /// By scope, path of the entry, and normal form; the two plugins have the same list, as a rule.
    by_place: BTreeMap<(String, String, String), usize>,
    span: Span,
    unnamed: u64,
    has_prometheus: bool,
}

#[derive(Debug)]
struct Pattern {
    scope: String,
    /// Whom its override is for, of namespaces; `None` is all.
    namespaces: Option<Vec<String>>,
    entry: String,
    /// In normal form.
    pattern: String,
    location: String,
    seen: Option<Seen>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StaleOut<'a> {
    scope: &'a str,
    entry: &'a str,
    pattern: &'a str,
    at: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    calls: u64,
    #[serde(flatten)]
    span: Span,
    stale: Vec<StaleOut<'a>>,
}

impl Usage {
    /// Nothing is used yet.
    #[must_use]
    pub fn of(configurations: &[Configuration<'_>]) -> Self {
        let mut usage = Usage {
            patterns: Vec::new(),
            by_place: BTreeMap::new(),
            span: Span::default(),
            unnamed: 0,
            has_prometheus: false,
        };
        for configuration in configurations {
            let criteria = configuration.criteria();
            for entry in configuration.entries().into_iter().filter(|entry| entry.list == List::Registry) {
                let criteria = entry.in_override.and_then(|position| criteria.get(position));
                for (text, node) in patterns(entry.node) {
                    let scope = scope(configuration, criteria);
                    let place = (home(configuration), entry.path.clone(), text.clone());
                    usage.by_place.entry(place).or_insert_with(|| {
                        usage.patterns.push(Pattern {
                            scope,
                            namespaces: namespaces(criteria),
                            entry: entry_name(entry.node).into_owned(),
                            pattern: text,
                            location: configuration.object.document.locate(node).to_string(),
                            seen: None,
                        });
                        usage.patterns.len() - 1
                    });
                }
            }
        }
        usage
    }

    /// Takes a call of a log.
    ///
    /// # Errors
    ///
    /// A connection whose name is not in the log: which host it used nobody knows.
    pub fn take(
        &mut self,
        call: &LoggedCall,
        seen: Seen,
        enforced: &Enforced<'_>,
        now: i64,
    ) -> std::result::Result<(), Skip> {
        let rulings = enforced.rulings(&call.call, now);
        let listed: Vec<_> = rulings.iter().filter(|ruling| ruling.reason == Reason::Listed).collect();
        if call.may_have_name
            && rulings.iter().any(|ruling| !matches!(ruling.reason, Reason::Listed | Reason::MeshInternal))
        {
            self.unnamed += seen.calls;
            return Err(Skip::Unnamed);
        }
        self.span.take(seen);
        for ruling in listed {
            let entry = enforced.entry(ruling).zip(enforced.plugins.get(ruling.plugin));
            let place =
                entry.map(|(entry, (configuration, _))| (home(configuration), entry.path.clone(), ruling.host.clone()));
            if let Some(position) = place.and_then(|place| self.by_place.get(&place)) {
                self.use_pattern(*position, seen);
            }
        }
        Ok(())
    }

    /// Takes what Prometheus has of one pattern.
    pub fn take_pattern(&mut self, namespace: &str, pattern: &str, seen: Seen) {
        self.has_prometheus = true;
        self.span.take(seen);
        for position in 0..self.patterns.len() {
            let Some(known) = self.patterns.get(position) else {
                return;
            };
            let is_for = known.namespaces.as_ref().is_none_or(|names| names.iter().any(|name| name == namespace));
            if is_for && known.pattern == pattern {
                self.use_pattern(position, seen);
            }
        }
    }

    fn use_pattern(&mut self, position: usize, seen: Seen) {
        if let Some(pattern) = self.patterns.get_mut(position) {
            match &mut pattern.seen {
                Some(known) => known.merge(seen),
                None => pattern.seen = Some(seen),
            }
        }
    }

    /// Writes what is not used; returns whether there is anything.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn write(&self, format: Format, out: &mut dyn Write) -> Result<bool> {
        let stale: Vec<&Pattern> = self.patterns.iter().filter(|pattern| pattern.seen.is_none()).collect();
        if format == Format::Table {
            let mut table = Table::new(&["FOR", "ENTRY", "PATTERN", "WHERE", "LAST USED"]);
            let last = format!("never in {}{}", count(self.span.calls, "call"), self.span);
            for one in &stale {
                let cells = [&one.scope, &one.entry, &one.pattern, &one.location, &last];
                table.row(cells.into_iter().cloned().collect());
            }
            if table.is_empty() {
                writeln!(out, "every entry is used")?;
            } else {
                table.write(out)?;
            }
        } else {
            let stale = stale.iter().map(|one| StaleOut {
                scope: &one.scope,
                entry: &one.entry,
                pattern: &one.pattern,
                at: &one.location,
            });
            document(out, format, &Answer { calls: self.span.calls, span: self.span, stale: stale.collect() })?;
        }
        Ok(self.patterns.iter().any(|pattern| pattern.seen.is_none()))
    }

    /// Tells what the answer cannot know.
    pub fn tell(&self, scanned: Option<&Scanned>, err: &mut dyn Write) {
        let used = self.patterns.iter().filter(|pattern| pattern.seen.is_some()).count();
        // Nobody is left to tell if this fails.
        let _ = writeln!(
            err,
            "{} of {} hosts and addresses are used",
            count(used as u64, ""),
            count(self.patterns.len() as u64, "")
        );
        if scanned.is_some() && self.unnamed > 0 {
            let _ = writeln!(
                err,
                "note: the names of {} are not in the log, so entries for TLS may be in use: ask Prometheus instead",
                count(self.unnamed, "connection")
            );
        }
        if self.has_prometheus {
            let _ = writeln!(
                err,
                "note: metrics name the host or address that matched, not the entry: entries that share it count together"
            );
        }
    }
}

/// The hosts and addresses of an entry in normal form, as metrics and rulings name them.
fn patterns(entry: &Node) -> Vec<(String, &Node)> {
    let list = |key| entry.elements(key).iter();
    let hosts = list("hosts").filter_map(|node| Some((HostPattern::from_config(node.text()?).ok()?.to_string(), node)));
    let addresses = list("addresses").filter_map(|node| Some((node.text()?.parse::<Cidr>().ok()?.to_string(), node)));
    hosts.chain(addresses).collect()
}

/// What two configurations share if they are the two plugins of one list: the namespace.
fn home(configuration: &Configuration<'_>) -> String {
    configuration.object.namespace().to_owned()
}

fn scope(configuration: &Configuration<'_>, criteria: Option<&Criteria<'_>>) -> String {
    let mut parts = Vec::new();
    let namespace = configuration.object.namespace();
    if !namespace.is_empty() {
        parts.push(namespace.to_owned());
    }
    if let Some(criteria) = criteria {
        for (word, names) in [("namespaces", &criteria.namespaces), ("workloads", &criteria.workloads)] {
            parts.extend(names.as_ref().map(|names| format!("{word} {}", names.join(","))));
        }
        parts.extend(criteria.labels.iter().map(|(key, value)| format!("{key}={value}")));
    }
    if parts.is_empty() { "all".to_owned() } else { parts.join("; ") }
}

/// The namespaces that an entry is for, as far as metrics tell; `None` is any.
fn namespaces(criteria: Option<&Criteria<'_>>) -> Option<Vec<String>> {
    let names = criteria?.namespaces.as_ref()?;
    Some(names.iter().map(|&name| name.to_owned()).collect())
}
