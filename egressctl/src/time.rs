//! Points in time: `--at`, `expires`, the times of log lines.

use std::time::{SystemTime, UNIX_EPOCH};

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// A point in time, in Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

impl Time {
    /// What the clock says.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// Reads a time as RFC 3339 has it.
    ///
    /// # Errors
    ///
    /// What is wrong, with a form to use.
    pub fn parse(text: &str) -> Result<Self, String> {
        OffsetDateTime::parse(text, &Rfc3339)
            .map(|time| Time(time.unix_timestamp()))
            .map_err(|_| "not a time (RFC 3339); use a form such as 2027-01-31T00:00:00Z".to_owned())
    }
}

/// As RFC 3339 has it, in UTC.
impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = OffsetDateTime::from_unix_timestamp(self.0).ok().and_then(|time| time.format(&Rfc3339).ok());
        f.write_str(text.as_deref().unwrap_or("out of range"))
    }
}

/// `--at`: the time as of which things are decided.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct AtArgs {
    /// Decide as of this time instead of now, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = Time::parse)]
    pub at: Option<Time>,
}

impl AtArgs {
    /// The time.
    #[must_use]
    pub fn time(&self) -> Time {
        self.at.unwrap_or_else(Time::now)
    }
}
