//! Entries that add nothing: listed twice, or permitted by another entry anyway. And globs that cost look-ups.
//!
//! Any entry that permits allows, so an entry is needless as soon as one other covers it. Nothing is compared with
//! everything: each name looks only where its parents stand.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use egress_filter::pattern::HostPattern;

use super::entries::Parsed;
use super::finding::Findings;
use super::rule;
use crate::configuration::{Configuration, List, entry_name};
use crate::document::Node;

/// How many globs of one suffix are many. Ten thousand took 6 ms a look-up before they were indexed; a thousand is
/// more than a person writes.
const MANY_GLOBS: usize = 1000;

/// With how many entries of one pattern or prefix another is compared: all with all would take minutes where a list has
/// the same host tens of thousands of times.
const MOST_COMPARED: usize = 1000;

/// Where patterns and prefixes stand: in which entry, the first first.
#[derive(Default)]
struct Index<'p> {
    exact: BTreeMap<&'p str, Vec<usize>>,
    suffixes: BTreeMap<&'p str, Vec<usize>>,
    globs: BTreeMap<String, Vec<usize>>,
}

/// Looks for overlaps within each list.
pub fn check(configuration: &Configuration<'_>, entries: &[Parsed<'_>], findings: &mut Findings) {
    for (list, done) in [(List::Registry, "permitted"), (List::Deny, "denied")] {
        let of_list: Vec<&Parsed<'_>> = entries.iter().filter(|parsed| parsed.entry.list == list).collect();
        hosts(configuration, &of_list, done, findings);
        addresses(configuration, &of_list, done, findings);
        globs(configuration, &of_list, findings);
    }
}

fn hosts(configuration: &Configuration<'_>, entries: &[&Parsed<'_>], done: &str, findings: &mut Findings) {
    let mut index = Index::default();
    for (position, parsed) in entries.iter().enumerate() {
        for (pattern, _) in &parsed.hosts {
            match pattern {
                HostPattern::Exact(name) => index.exact.entry(name.as_str()).or_default().push(position),
                HostPattern::Suffix(suffix) => index.suffixes.entry(suffix.as_str()).or_default().push(position),
                HostPattern::Glob(_) => index.globs.entry(pattern.to_string()).or_default().push(position),
            }
        }
    }
    for (position, parsed) in entries.iter().enumerate() {
        // What goes by address has more to it than its hosts.
        if !parsed.addresses.is_empty() || parsed.tcp_ports().next().is_some() {
            continue;
        }
        let mut seen: HashSet<String> = HashSet::new();
        let mut needless: Vec<(&Node, String, usize)> = Vec::new();
        for (pattern, node) in &parsed.hosts {
            let text = pattern.to_string();
            if !seen.insert(text.clone()) {
                let message = format!("{text:?} stands in this entry twice; keep one");
                findings.add(&rule::DUPLICATE, &configuration.object, node, message);
                continue;
            }
            if let Some(other) = duplicate(&index, pattern, position, entries) {
                let message = format!(
                    "{text:?} is listed already, for these ports, by {}; take it out here",
                    named(configuration, entries, other)
                );
                findings.add(&rule::DUPLICATE, &configuration.object, node, message);
            } else if let Some((wildcard, other)) = wider(&index, pattern, position, entries) {
                needless.push((node, format!("{text:?} is {done} by {wildcard:?}"), other));
            }
        }
        let is_whole = needless.len() == parsed.hosts.len() && needless.len() > 1;
        if let (true, Some((_, _, other))) = (is_whole, needless.first()) {
            let message = format!(
                "{}: all its hosts are {done} on these ports by wider entries such as {}; take it out",
                parsed.entry.path,
                named(configuration, entries, *other)
            );
            findings.add(&rule::SHADOWED, &configuration.object, parsed.entry.node, message);
        } else {
            for (node, what, other) in needless {
                let message = format!(
                    "{what} of {} on these ports anyway; take it out, or narrow that one",
                    named(configuration, entries, other)
                );
                findings.add(&rule::SHADOWED, &configuration.object, node, message);
            }
        }
    }
}

/// An entry that lists the very pattern, and permits all that this one does. Of two equals the later is the duplicate.
fn duplicate(index: &Index<'_>, pattern: &HostPattern<'_>, own: usize, entries: &[&Parsed<'_>]) -> Option<usize> {
    let same = match pattern {
        HostPattern::Exact(name) => index.exact.get(name.as_str()),
        HostPattern::Suffix(suffix) => index.suffixes.get(suffix.as_str()),
        HostPattern::Glob(_) => index.globs.get(&pattern.to_string()),
    };
    same?.iter().copied().take(MOST_COMPARED).find(|other| {
        let equal = covers(entries, own, *other);
        *other != own && covers(entries, *other, own) && (!equal || *other < own)
    })
}

/// A wildcard of another entry that covers the pattern. One of the same entry is there on purpose: what is named beside it
/// is counted by itself.
fn wider<'i>(
    index: &Index<'i>,
    pattern: &HostPattern<'_>,
    own: usize,
    entries: &[&Parsed<'_>],
) -> Option<(String, usize)> {
    let below = match pattern {
        HostPattern::Exact(name) => name.as_str(),
        HostPattern::Suffix(suffix) => suffix.as_str(),
        // What stands before a glob's suffix is at least one label.
        HostPattern::Glob(glob) => glob.suffix(),
    };
    let mut suffix = match pattern {
        HostPattern::Glob(_) => Some(below),
        _ => below.split_once('.').map(|(_, parent)| parent),
    };
    while let Some(parent) = suffix {
        let covering = index
            .suffixes
            .get(parent)
            .into_iter()
            .flatten()
            .take(MOST_COMPARED)
            .find(|other| **other != own && covers(entries, **other, own));
        if let Some(other) = covering {
            return Some((format!("*.{parent}"), *other));
        }
        suffix = parent.split_once('.').map(|(_, parent)| parent);
    }
    None
}

/// Whether entry `a` permits on the ports of `b` whatever `b` does, for every sidecar that has `b`.
fn covers(entries: &[&Parsed<'_>], a: usize, b: usize) -> bool {
    let (Some(a), Some(b)) = (entries.get(a), entries.get(b)) else {
        return false;
    };
    // The base is everywhere; two overrides need not be on the same sidecars.
    let is_there = a.entry.in_override.is_none() || a.entry.in_override == b.entry.in_override;
    is_there && a.covers_ports_of(b)
}

fn addresses(configuration: &Configuration<'_>, entries: &[&Parsed<'_>], done: &str, findings: &mut Findings) {
    let mut index: BTreeMap<(u8, std::net::IpAddr), Vec<usize>> = BTreeMap::new();
    for (position, parsed) in entries.iter().enumerate().filter(|(_, parsed)| parsed.hosts.is_empty()) {
        for (cidr, _) in &parsed.addresses {
            index.entry((cidr.length(), cidr.base())).or_default().push(position);
        }
    }
    for (position, parsed) in entries.iter().enumerate().filter(|(_, parsed)| parsed.hosts.is_empty()) {
        let mut seen = BTreeSet::new();
        for (cidr, node) in &parsed.addresses {
            if !seen.insert(*cidr) {
                let message = format!("\"{cidr}\" stands in this entry twice; keep one");
                findings.add(&rule::DUPLICATE, &configuration.object, node, message);
                continue;
            }
            for length in (0..=cidr.length()).rev() {
                let wider = egress_filter::address::Cidr::new(cidr.base(), length);
                let holds = |other: &&usize| {
                    let equal = wider == *cidr && covers(entries, position, **other);
                    **other != position && covers(entries, **other, position) && (!equal || **other < position)
                };
                let Some(other) =
                    index.get(&(length, wider.base())).into_iter().flatten().take(MOST_COMPARED).find(holds)
                else {
                    continue;
                };
                let by = named(configuration, entries, *other);
                let (rule, message) = if wider == *cidr {
                    (
                        &rule::DUPLICATE,
                        format!("\"{cidr}\" is listed already, for these ports, by {by}; take it out here"),
                    )
                } else {
                    (&rule::SHADOWED, format!("\"{cidr}\" is {done} by \"{wider}\" of {by} on these ports anyway"))
                };
                findings.add(rule, &configuration.object, node, message);
                break;
            }
        }
    }
}

fn globs(configuration: &Configuration<'_>, entries: &[&Parsed<'_>], findings: &mut Findings) {
    let mut counts: BTreeMap<&str, (usize, &Node)> = BTreeMap::new();
    for parsed in entries {
        for (pattern, node) in &parsed.hosts {
            if let HostPattern::Glob(glob) = pattern {
                counts.entry(glob.suffix()).or_insert((0, node)).0 += 1;
            }
        }
    }
    for (suffix, (count, node)) in counts.into_iter().filter(|(_, (count, _))| *count > MANY_GLOBS) {
        let message = format!(
            "{count} globs end in {suffix:?}, and each name below it is compared with all of them; use \"*.{suffix}\" or \
             exact names"
        );
        findings.add(&rule::MANY_GLOBS, &configuration.object, node, message);
    }
}

fn named(configuration: &Configuration<'_>, entries: &[&Parsed<'_>], position: usize) -> String {
    let Some(parsed) = entries.get(position) else {
        return String::new();
    };
    let location = configuration.object.document.locate(parsed.entry.node);
    format!("{} {} ({location})", parsed.entry.path, entry_name(parsed.entry.node))
}
