//! Envoy's access logs: from lines, in whatever format they are and whoever wrapped them, to the calls that they tell of.
//!
//! ```text
//! scan ── wrapper ── json | template ── fields ── evidence ── logged_call
//! blocks   kubectl,   a line's values     by name   what a       what the policy
//! of lines CRI, ...                                 verdict needs  is asked
//! ```
//!
//! Lines are many and calls are few: [`scan()`] counts lines with the same [`Evidence`] as one, so that only distinct ones are
//! looked at closely. Nothing is dropped unsaid: every line that comes to no call is counted by its [`Skip`].

mod evidence;
mod fields;
mod json;
mod line;
mod logged_call;
mod scan;
mod summary;
mod template;
mod wrapper;

pub use evidence::{Evidence, Kind, UNKNOWN};
pub use line::{Format, Reader};
pub use logged_call::{HTTP_PORT, LoggedCall, Passage};
pub use scan::{LogArgs, Scan, Scanned, Seen, scan};
pub use summary::{Span, count, seen_at, skip_counts, tell_skipped};
pub use wrapper::workload_of;

/// Why a line comes to no call that can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Nothing stands there.
    Blank,
    /// It is longer than [`scan()`] reads.
    TooLong,
    /// A container runtime split it in two.
    Split,
    /// It is no access log line: what the application or the proxy itself wrote.
    Foreign,
    /// What came in to the workload.
    Inbound,
    /// Envoy itself refused the request, before the filter saw it.
    Malformed,
    /// It ended before it was decided.
    ClosedEarly,
    /// Neither a name nor an address stands there.
    NoDestination,
    /// A connection whose name, if it had one, is not in the line.
    Unnamed,
    /// Only the wildcard that it matched is in the line, not its name.
    OnlyPattern,
}

impl Skip {
    /// Every reason, in the order in which they are told.
    pub const ALL: [Skip; 10] = [
        Skip::Blank,
        Skip::TooLong,
        Skip::Split,
        Skip::Foreign,
        Skip::Inbound,
        Skip::Malformed,
        Skip::ClosedEarly,
        Skip::NoDestination,
        Skip::Unnamed,
        Skip::OnlyPattern,
    ];

    /// A word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Skip::Blank => "blank",
            Skip::TooLong => "tooLong",
            Skip::Split => "split",
            Skip::Foreign => "notAccessLog",
            Skip::Inbound => "inbound",
            Skip::Malformed => "malformedRequest",
            Skip::ClosedEarly => "closedEarly",
            Skip::NoDestination => "noDestination",
            Skip::Unnamed => "nameNotLogged",
            Skip::OnlyPattern => "onlyPatternLogged",
        }
    }

    /// What to tell people of such lines.
    #[must_use]
    pub fn explanation(self) -> &'static str {
        match self {
            Skip::Blank => "blank",
            Skip::TooLong => "longer than 1 MiB",
            Skip::Split => "split in two by the container runtime",
            Skip::Foreign => "no access log line of a format that is known here (--log-format names another)",
            Skip::Inbound => "inbound",
            Skip::Malformed => "refused by Envoy itself, before the filter saw the request",
            Skip::ClosedEarly => "ended before it was decided",
            Skip::NoDestination => "without a name and without an address",
            Skip::Unnamed => "a connection whose name is not in the log",
            Skip::OnlyPattern => "only the wildcard that matched is in the log, not the name",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// How many lines came to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    /// Counts lines.
    pub fn add(&mut self, skip: Skip, lines: u64) {
        if let Some(count) = self.0.get_mut(skip.index()) {
            *count += lines;
        }
    }

    /// How many lines.
    #[must_use]
    pub fn of(&self, skip: Skip) -> u64 {
        self.0.get(skip.index()).copied().unwrap_or_default()
    }

    /// Adds what another counted.
    pub fn merge(&mut self, other: &Skipped) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own += other;
        }
    }

    /// Those that there are, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Skip, u64)> {
        Skip::ALL.into_iter().zip(self.0).filter(|(_, lines)| *lines > 0)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

#[cfg(test)]
mod tests;
