//! What was called and is not listed, by caller: counted, and for people.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;

use super::wanted::{Judgement, Unwanted, Wanted, Wish};
use super::wildcards::wildcards;
use super::{Form, Scope};
use crate::access_log::{LoggedCall, Seen, Span, UNKNOWN, count, seen_at};
use crate::bounded::Bounded;
use crate::failure::Result;
use crate::output::{Format, Table, document};

/// Calls of one workload that one entry would allow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The callers' namespace.
    pub namespace: String,
    /// The callers.
    pub workload: String,
    /// What they call.
    pub wanted: Wanted,
}

/// What is known of such calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// How often and when.
    pub seen: Seen,
    /// Why they are not allowed.
    pub reasons: BTreeSet<&'static str>,
    /// How many names a wildcard stands for; 1 for what is none.
    pub names: u64,
    /// Whether the port is the usual one, and not one that was seen.
    pub is_port_assumed: bool,
}

impl Row {
    /// Adds other calls of the same kind.
    pub fn merge(&mut self, other: Row) {
        self.seen.merge(other.seen);
        self.reasons.extend(other.reasons);
        self.is_port_assumed |= other.is_port_assumed;
    }

    /// Why they are not allowed, in one text.
    #[must_use]
    pub fn reason(&self) -> String {
        self.reasons.iter().copied().collect::<Vec<_>>().join(",")
    }
}

type NotKey = (Unwanted, String, String, String, Option<u16>);

/// Suggestions in the making.
#[derive(Debug)]
pub struct Suggestions {
    rows: Bounded<Key, Row>,
    not: Bounded<NotKey, Seen>,
    span: Span,
    without_row: u64,
}

impl Suggestions {
    /// None yet, and never more than so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Suggestions { rows: Bounded::new(most), not: Bounded::new(most), span: Span::default(), without_row: 0 }
    }

    /// Takes a call.
    pub fn take(&mut self, call: &LoggedCall, seen: Seen, judgement: Judgement) {
        self.span.take(seen);
        let (namespace, workload) = (call.namespace.clone(), call.workload.clone());
        match judgement {
            Judgement::Fine => {}
            Judgement::Missing { wanted, reason } => {
                let row =
                    Row { seen, reasons: BTreeSet::from([reason]), names: 1, is_port_assumed: call.is_port_assumed };
                let evicted = self.rows.add(Key { namespace, workload, wanted }, row, Row::merge);
                self.without_row += evicted.map_or(0, |(_, row)| row.seen.calls);
            }
            Judgement::Not(why) => {
                let key = (why, namespace, workload, call.host(), call.call.port);
                let evicted = self.not.add(key, seen, Seen::merge);
                self.without_row += evicted.map_or(0, |(_, seen)| seen.calls);
            }
        }
    }

    /// The rows, with wildcards where so many hosts of one scope lie below one domain.
    #[must_use]
    pub fn finish(self, min_calls: u64, least: Option<u64>, scope: Scope) -> Rows {
        let mut rare = 0;
        let exact: BTreeMap<Key, Row> = self.rows.into_iter().collect();
        let patterns = least.map_or_else(BTreeMap::new, |least| patterns(&exact, least, scope));
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        for (key, row) in &exact {
            let pattern = patterns.get(key).cloned();
            let is_wildcard = pattern.is_some();
            let wanted = match pattern {
                Some(pattern) => Wanted { destination: Wish::Host(pattern), ..key.wanted.clone() },
                None => key.wanted.clone(),
            };
            let key = Key { wanted, ..key.clone() };
            let known = rows.entry(key);
            known
                .and_modify(|known| {
                    known.merge(row.clone());
                    known.names += u64::from(is_wildcard);
                })
                .or_insert_with(|| row.clone());
        }
        rows.retain(|_, row| {
            let stays = row.seen.calls >= min_calls;
            rare += if stays { 0 } else { row.seen.calls };
            stays
        });
        Rows { rows, not: self.not.into_iter().collect(), span: self.span, rare, without_row: self.without_row }
    }
}

/// The wildcard for each row that gets one.
fn patterns(rows: &BTreeMap<Key, Row>, least: u64, scope: Scope) -> BTreeMap<Key, String> {
    let mut groups: BTreeMap<_, Vec<(&Key, &str)>> = BTreeMap::new();
    for key in rows.keys() {
        if let Wish::Host(host) = &key.wanted.destination {
            let (namespace, workload) = scope.of(key);
            let group = groups.entry((namespace, workload, key.wanted.port, key.wanted.protocol)).or_default();
            group.push((key, host));
        }
    }
    let mut patterns = BTreeMap::new();
    for keys in groups.values() {
        let replaced = wildcards(&keys.iter().map(|(_, host)| *host).collect(), least);
        patterns.extend(keys.iter().filter_map(|(key, host)| Some(((*key).clone(), replaced.get(host)?.clone()))));
    }
    patterns
}

impl Scope {
    /// The namespace and workload that entries for a caller are for; empty is any.
    #[must_use]
    pub fn of(self, key: &Key) -> (&str, &str) {
        match self {
            Scope::Mesh => ("", ""),
            Scope::Namespace => (&key.namespace, ""),
            Scope::Workload => (&key.namespace, &key.workload),
        }
    }

    /// Whether a caller is known well enough for entries of its own.
    #[must_use]
    pub fn knows(self, key: &Key) -> bool {
        let (namespace, workload) = self.of(key);
        namespace != UNKNOWN && workload != UNKNOWN
    }
}

/// Suggestions, as they are written.
#[derive(Debug)]
pub struct Rows {
    /// What is missing.
    pub rows: BTreeMap<Key, Row>,
    not: BTreeMap<NotKey, Seen>,
    span: Span,
    rare: u64,
    without_row: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RowOut<'a> {
    namespace: &'a str,
    workload: &'a str,
    host: String,
    port: u16,
    is_port_assumed: bool,
    protocol: &'static str,
    reason: String,
    names: u64,
    calls: u64,
    first_seen: Option<String>,
    last_seen: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NotOut<'a> {
    namespace: &'a str,
    workload: &'a str,
    host: &'a str,
    port: Option<u16>,
    because: &'static str,
    calls: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    suggestions: Vec<RowOut<'a>>,
    not_suggested: Vec<NotOut<'a>>,
}

/// How many of the calls that no entry is proposed for are told on standard error.
const MOST_TOLD: usize = 20;

impl Rows {
    /// The rows by caller, and within that what is called most first.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&Key, &Row)> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|(a, a_row), (b, b_row)| {
            let by_caller = (&a.namespace, &a.workload).cmp(&(&b.namespace, &b.workload));
            by_caller.then(b_row.seen.calls.cmp(&a_row.seen.calls)).then_with(|| a.cmp(b))
        });
        rows
    }

    /// Whether any is for a name.
    #[must_use]
    pub fn have_hosts(&self) -> bool {
        self.rows.keys().any(|key| matches!(key.wanted.destination, Wish::Host(_)))
    }

    /// Writes the rows.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn write(&self, format: Format, out: &mut dyn Write) -> Result<()> {
        if format != Format::Table {
            let suggestions = self.sorted().into_iter().map(row_out).collect();
            let not_suggested = self.not.iter().map(not_out).collect();
            return document(out, format, &Answer { suggestions, not_suggested });
        }
        let header =
            ["NAMESPACE", "WORKLOAD", "HOST", "PORT", "PROTOCOL", "REASON", "CALLS", "FIRST SEEN", "LAST SEEN"];
        let mut table = Table::new(&header);
        for (key, row) in self.sorted() {
            let names = if row.names > 1 { format!(" ({} names)", row.names) } else { String::new() };
            let assumed = if row.is_port_assumed { " (assumed)" } else { "" };
            table.row(vec![
                key.namespace.clone(),
                key.workload.clone(),
                format!("{}{names}", host(&key.wanted)),
                format!("{}{assumed}", key.wanted.port),
                key.wanted.protocol.as_str().to_owned(),
                row.reason(),
                row.seen.calls.to_string(),
                seen_at(row.seen.first),
                seen_at(row.seen.last),
            ]);
        }
        if table.is_empty() {
            return Ok(writeln!(out, "nothing is missing")?);
        }
        table.write(out)
    }

    /// Tells on standard error what is not in the answer.
    pub fn tell(&self, form: Form, scope: Scope, err: &mut dyn Write) {
        let mut say = |text: String| {
            // Nobody is left to tell if this fails.
            let _ = writeln!(err, "{text}");
        };
        let missing = self.rows.values().map(|row| row.seen.calls).sum();
        say(format!(
            "{}{}: {} without an entry, in {}",
            count(self.span.calls, "call"),
            self.span,
            count(missing, ""),
            count(self.rows.len() as u64, "suggestion")
        ));
        for ((why, namespace, workload, host, port), seen) in self.not.iter().take(MOST_TOLD) {
            let port = port.map_or_else(String::new, |port| format!(":{port}"));
            say(format!(
                "not suggested: {host}{port}, {} of {namespace}/{workload}: {}",
                count(seen.calls, "call"),
                why.explanation()
            ));
        }
        if self.not.len() > MOST_TOLD {
            let more = count((self.not.len() - MOST_TOLD) as u64, "");
            say(format!("not suggested: {more} more; --as rows -o json has all of them"));
        }
        if self.rare > 0 {
            say(format!("note: {} left out by --min-calls", count(self.rare, "call")));
        }
        if self.without_row > 0 {
            say(format!("note: {} left out: there are too many different ones", count(self.without_row, "call")));
        }
        let unknown: u64 = self.rows.iter().filter(|(key, _)| !scope.knows(key)).map(|(_, row)| row.seen.calls).sum();
        if form != Form::Rows && unknown > 0 {
            say(format!(
                "note: {} left out, because their namespace or workload is not known: use -n and --workload, or --by mesh",
                count(unknown, "call")
            ));
        }
        if self.rows.values().any(|row| row.is_port_assumed) {
            say("note: ports that are assumed were not seen: 80 for HTTP, 443 for TLS".to_owned());
        }
    }
}

/// The host or address of an entry.
#[must_use]
pub fn host(wanted: &Wanted) -> String {
    match &wanted.destination {
        Wish::Host(host) => host.clone(),
        Wish::Address(address) => address.to_string(),
    }
}

fn row_out<'a>((key, row): (&'a Key, &'a Row)) -> RowOut<'a> {
    RowOut {
        namespace: &key.namespace,
        workload: &key.workload,
        host: host(&key.wanted),
        port: key.wanted.port,
        is_port_assumed: row.is_port_assumed,
        protocol: key.wanted.protocol.as_str(),
        reason: row.reason(),
        names: row.names,
        calls: row.seen.calls,
        first_seen: row.seen.first.map(|time| time.to_string()),
        last_seen: row.seen.last.map(|time| time.to_string()),
    }
}

fn not_out<'a>(((why, namespace, workload, host, port), seen): (&'a NotKey, &'a Seen)) -> NotOut<'a> {
    NotOut { namespace, workload, host, port: *port, because: why.explanation(), calls: seen.calls }
}
