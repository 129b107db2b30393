//! What `replay` prints: the rows, and what they leave out.

use std::io::Write;

use serde::Serialize;

use super::rows::{Change, Row, Rows};
use crate::access_log::{LoggedCall, Scanned, Seen, Span, count, seen_at, skip_counts, tell_skipped};
use crate::failure::Result;
use crate::output::{BAD, Format, GOOD, Outcome, Table, document, styled};

/// What is told besides the rows.
#[derive(Debug, Default)]
pub struct Report {
    /// Calls whose verdict stays.
    pub unchanged: u64,
    /// Calls that the candidate allows and the mesh does not let out.
    pub still_blocked: u64,
    /// Whether the candidate denies nothing in truth.
    pub is_report: bool,
    /// Whether labels, which logs do not tell, decide what some sidecars enforce.
    pub go_by_labels: bool,
    unseen: u64,
    assumed_ports: u64,
    span: Span,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    summary: Summary<'a>,
    changes: Vec<ChangeOut<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    lines: u64,
    calls: u64,
    #[serde(flatten)]
    span: &'a Span,
    unchanged: u64,
    newly_denied: u64,
    newly_allowed: u64,
    allowed_but_blocked_by_mesh: u64,
    without_row: u64,
    skipped: serde_json::Map<String, serde_json::Value>,
    notes: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangeOut<'a> {
    change: &'static str,
    namespace: &'a str,
    workload: &'a str,
    host: &'a str,
    port: Option<u16>,
    protocol: &'static str,
    reason: Option<&'static str>,
    calls: u64,
    first_seen: Option<String>,
    last_seen: Option<String>,
    entry: Option<&'a str>,
    at: Option<&'a str>,
}

impl Report {
    /// Takes a call that is decided.
    pub fn take(&mut self, logged: &LoggedCall, seen: Seen, is_unseen: bool) {
        self.span.take(seen);
        if is_unseen {
            self.unseen += seen.calls;
        }
        if logged.is_port_assumed {
            self.assumed_ports += seen.calls;
        }
    }

    /// Writes all of it.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn write(self, scanned: &Scanned, rows: Rows, format: Format, out: &mut dyn Write) -> Result<Outcome> {
        let (denied, allowed) = (rows.calls(Change::Denied), rows.calls(Change::Allowed));
        let without_row = rows.other();
        let notes = self.notes(without_row);
        let rows = rows.sorted();
        match format {
            Format::Table => write_table(&rows, out)?,
            Format::Json | Format::Yaml => {
                let summary = Summary {
                    lines: scanned.lines,
                    calls: self.span.calls,
                    span: &self.span,
                    unchanged: self.unchanged,
                    newly_denied: denied,
                    newly_allowed: allowed,
                    allowed_but_blocked_by_mesh: self.still_blocked,
                    without_row,
                    skipped: skip_counts(&scanned.skipped),
                    notes: &notes,
                };
                document(out, format, &Answer { summary, changes: rows.iter().map(change_out).collect() })?;
            }
        }
        out.flush()?;
        let mut err = crate::output::stderr();
        // Nobody is left to tell if this fails.
        let _ = writeln!(
            err,
            "{}, {}{}: {} unchanged, {} newly denied, {} newly allowed{}",
            count(scanned.lines, "line"),
            count(self.span.calls, "call"),
            self.span,
            count(self.unchanged, ""),
            count(denied, ""),
            count(allowed, ""),
            if self.still_blocked > 0 {
                format!(", {} still denied by the mesh", count(self.still_blocked, ""))
            } else {
                String::new()
            }
        );
        tell_skipped(&scanned.skipped, &mut err);
        for note in notes {
            let _ = writeln!(err, "note: {note}");
        }
        Ok(Outcome::of_findings(denied > 0))
    }

    fn notes(&self, without_row: u64) -> Vec<String> {
        let mut notes = Vec::new();
        let mut note = |is_true: bool, text: String| {
            if is_true {
                notes.push(text);
            }
        };
        note(
            self.is_report,
            "the candidate is on REPORT and would deny nothing yet; this is what ENFORCE would do".to_owned(),
        );
        note(
            self.still_blocked > 0,
            format!(
                "{} that the candidate allows would still be denied by the mesh itself (BlackHoleCluster, block_all)",
                count(self.still_blocked, "call")
            ),
        );
        note(
            self.unseen > 0,
            format!("{} would be seen by no plugin of the candidate, and pass", count(self.unseen, "call")),
        );
        note(
            self.assumed_ports > 0,
            format!(
                "{} without a destination address in the log: the name's port was taken, or 80 for HTTP and 443 for TLS",
                count(self.assumed_ports, "call")
            ),
        );
        note(
            self.go_by_labels,
            "the candidate goes by pods' labels, which are not in logs: such overrides and selectors match nothing here"
                .to_owned(),
        );
        note(
            without_row > 0,
            format!("{} are counted, but not shown: there are too many different ones", count(without_row, "call")),
        );
        notes
    }
}

fn write_table(rows: &[(Row, Seen)], out: &mut dyn Write) -> Result<()> {
    let header = [
        "CHANGE",
        "NAMESPACE",
        "WORKLOAD",
        "HOST",
        "PORT",
        "PROTOCOL",
        "REASON",
        "CALLS",
        "FIRST SEEN",
        "LAST SEEN",
        "FROM",
    ];
    let mut table = Table::new(&header);
    for (row, seen) in rows {
        let style = if row.change == Change::Denied { BAD } else { GOOD };
        table.row(vec![
            styled(style, row.change.as_str()),
            row.namespace.clone(),
            row.workload.clone(),
            row.host.clone(),
            row.port.map_or_else(|| "-".to_owned(), |port| port.to_string()),
            row.protocol.to_owned(),
            row.reason.unwrap_or("no plugin").to_owned(),
            seen.calls.to_string(),
            seen_at(seen.first),
            seen_at(seen.last),
            row.entry.as_ref().map_or_else(|| "-".to_owned(), |entry| format!("{} ({})", entry.location, entry.name)),
        ]);
    }
    if !table.is_empty() {
        table.write(out)?;
    }
    Ok(())
}

fn change_out((row, seen): &(Row, Seen)) -> ChangeOut<'_> {
    ChangeOut {
        change: row.change.as_str(),
        namespace: &row.namespace,
        workload: &row.workload,
        host: &row.host,
        port: row.port,
        protocol: row.protocol,
        reason: row.reason,
        calls: seen.calls,
        first_seen: seen.first.map(|time| time.to_string()),
        last_seen: seen.last.map(|time| time.to_string()),
        entry: row.entry.as_ref().map(|entry| entry.name.as_str()),
        at: row.entry.as_ref().map(|entry| entry.location.as_str()),
    }
}
