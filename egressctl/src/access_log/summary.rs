//! How commands tell what a log came to.

use std::fmt;
use std::io::Write;

use serde::ser::{SerializeMap, Serializer};

use super::{Seen, Skipped};
use crate::time::Time;

/// How many calls there are, and from when to when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// How many.
    pub calls: u64,
    /// The first; `None` where no line has a time.
    pub first: Option<Time>,
    /// The last.
    pub last: Option<Time>,
}

impl Span {
    /// Takes calls.
    pub fn take(&mut self, seen: Seen) {
        self.calls += seen.calls;
        self.first = [self.first, seen.first].into_iter().flatten().min();
        self.last = self.last.max(seen.last);
    }
}

/// ` from TIME to TIME`, or nothing.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (Some(first), Some(last)) => write!(f, " from {first} to {last}"),
            _ => Ok(()),
        }
    }
}

/// The times alone, as fields of what they are flattened into.
impl serde::Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("firstSeen", &self.first.map(|time| time.to_string()))?;
        map.serialize_entry("lastSeen", &self.last.map(|time| time.to_string()))?;
        map.end()
    }
}

/// A time in a cell.
#[must_use]
pub fn seen_at(time: Option<Time>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}

/// `1 line`, `12,345 lines`; without a noun the number alone.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    match (noun, number) {
        ("", _) => text,
        (_, 1) => format!("{text} {noun}"),
        _ => format!("{text} {noun}s"),
    }
}

/// The lines that are no calls, as an object.
#[must_use]
pub fn skip_counts(skipped: &Skipped) -> serde_json::Map<String, serde_json::Value> {
    skipped.iter().map(|(skip, lines)| (skip.as_str().to_owned(), lines.into())).collect()
}

/// Says how many lines are no calls, and why.
pub fn tell_skipped(skipped: &Skipped, err: &mut dyn Write) {
    for (skip, lines) in skipped.iter() {
        // Nobody is left to tell if this fails.
        let _ = writeln!(err, "not decided: {}: {}", count(lines, "line"), skip.explanation());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_numbers_in_groups_of_three_digits() {
        for (number, expected) in
            [(0, "0 lines"), (1, "1 line"), (999, "999 lines"), (1000, "1,000 lines"), (1_234_567, "1,234,567 lines")]
        {
            assert_eq!(count(number, "line"), expected);
        }
        assert_eq!(count(12345, ""), "12,345");
    }
}
