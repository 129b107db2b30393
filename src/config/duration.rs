//! Durations as Istio writes them: `5s`, `500ms`, `1m30s` (Go's `time.ParseDuration`, without a sign).

use std::time::Duration;

/// Reads a duration; `None` for what is none, and for more than 100 hours or so.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(unit)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(end)?;
        let nanoseconds: u64 = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut part = Duration::from_nanos(if whole.is_empty() { 0 } else { whole.parse().ok()? });
        part = part.checked_mul(u32::try_from(nanoseconds.min(1_000_000_000)).ok()?)?;
        part = part.checked_mul(u32::try_from(nanoseconds / 1_000_000_000).ok()?.max(1))?;
        total = total.checked_add(part)?.checked_add(fraction_of(nanoseconds, fraction)?)?;
        rest = tail;
    }
    Some(total)
}

/// What the digits behind a point come to; what is finer than a nanosecond is dropped.
fn fraction_of(mut nanoseconds: u64, digits: &str) -> Option<Duration> {
    let mut total = 0;
    for digit in digits.chars() {
        nanoseconds /= 10;
        total += nanoseconds * u64::from(digit.to_digit(10)?);
    }
    Some(Duration::from_nanos(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("2h", 7_200_000),
            ("1.25m", 75_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "5", "s", "5 s", "-5s", "5x", "1m30", "..5s", "5S", "1e3s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
