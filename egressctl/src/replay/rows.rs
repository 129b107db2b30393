//! What changes, by who called what: at most so many rows, whatever is in the log.

use std::collections::BTreeMap;

use crate::access_log::Seen;
use crate::bounded::{Bounded, MOST};

/// How a verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// It passed until now.
    Denied,
    /// It was denied until now.
    Allowed,
}

impl Change {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Change::Denied => "denied",
            Change::Allowed => "allowed",
        }
    }
}

/// The entry that decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub location: String,
}

/// Calls that change alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// How they change.
    pub change: Change,
    /// The callers' namespace.
    pub namespace: String,
    /// The callers.
    pub workload: String,
    /// What they call.
    pub host: String,
    /// On which port.
    pub port: Option<u16>,
    /// In which protocol.
    pub protocol: &'static str,
    /// Why the candidate decides so; `None` where no plugin sees it.
    pub reason: Option<&'static str>,
    /// The entry that decides, or that comes closest.
    pub entry: Option<Entry>,
}

/// All rows, and what did not get one.
#[derive(Debug)]
pub struct Rows {
    rows: Bounded<Row, Seen>,
    other: BTreeMap<Change, u64>,
}

impl Default for Rows {
    fn default() -> Self {
        Rows::at_most(MOST)
    }
}

impl Rows {
    /// No row yet, and never more than so many.
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        Rows { rows: Bounded::new(most), other: BTreeMap::new() }
    }

    /// Adds calls.
    pub fn add(&mut self, row: Row, seen: Seen) {
        if let Some((row, seen)) = self.rows.add(row, seen, Seen::merge) {
            *self.other.entry(row.change).or_default() += seen.calls;
        }
    }

    /// How many calls change so, with those that got no row.
    #[must_use]
    pub fn calls(&self, change: Change) -> u64 {
        let in_rows = self.rows.iter().filter(|(row, _)| row.change == change).map(|(_, seen)| seen.calls);
        in_rows.sum::<u64>() + self.other.get(&change).copied().unwrap_or_default()
    }

    /// How many calls got no row.
    #[must_use]
    pub fn other(&self) -> u64 {
        self.other.values().sum()
    }

    /// The rows: what is denied first, then what is called most, then by name.
    #[must_use]
    pub fn sorted(self) -> Vec<(Row, Seen)> {
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        rows.sort_by(|(a, a_seen), (b, b_seen)| {
            (a.change, b_seen.calls).cmp(&(b.change, a_seen.calls)).then_with(|| a.cmp(b))
        });
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(host: usize) -> Row {
        Row {
            change: if host.is_multiple_of(3) { Change::Allowed } else { Change::Denied },
            namespace: "shop".to_owned(),
            workload: "cart".to_owned(),
            host: format!("{host}.example"),
            port: Some(443),
            protocol: "tls",
            reason: None,
            entry: None,
        }
    }

    #[test]
    fn keeps_the_same_rows_in_whatever_order_they_come_and_counts_the_others() {
        let calls = |host: usize| Seen { calls: 1 + host as u64 % 7, first: None, last: None };
        let fill = |order: &mut dyn Iterator<Item = usize>| {
            let mut rows = Rows::at_most(10);
            for host in order {
                rows.add(row(host % 50), calls(host % 50));
            }
            rows
        };
        let (forward, backward) = (fill(&mut (0..200)), fill(&mut (0..200).rev()));
        let total: u64 = (0..200).map(|host| calls(host % 50).calls).sum();
        assert_eq!(forward.calls(Change::Denied) + forward.calls(Change::Allowed), total);
        assert_eq!(forward.other(), backward.other());
        let (forward, backward) = (forward.sorted(), backward.sorted());
        assert_eq!(forward.len(), 10);
        assert_eq!(forward, backward);
    }
}
