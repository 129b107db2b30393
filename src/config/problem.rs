//! What is wrong with a configuration: where, what, and how to repair it.

use std::fmt;

use crate::name::split_scheme;

/// The most problems that are written out; the rest are counted.
pub(super) const MAX_PROBLEMS: usize = 100;

/// The longest part of a value that is repeated, in characters.
pub(super) const MAX_VALUE: usize = 80;

/// Everything that is wrong with a configuration, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidConfig {
    pub(super) problems: Vec<Problem>,
    /// Problems that were found and not kept.
    pub(super) more: usize,
}

impl InvalidConfig {
    /// The problems, in the order of the text; at most 100.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidConfig {}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) path: String,
    /// In quotes, if it is a text.
    pub(super) value: Option<String>,
    pub(super) message: String,
}

impl Problem {
    /// Where: a path such as `registry[2].hosts[0]`. Empty for the document as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", if self.path.is_empty() { "configuration" } else { &self.path })?;
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A text in quotes, shortened if it is long, without a URL's user and password: this goes to a log.
pub(super) fn quoted(text: &str) -> String {
    let url = split_scheme(text).and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?.1)));
    let text = match url {
        Some((scheme, host)) => &format!("{scheme}://***@{host}"),
        None => text,
    };
    match text.char_indices().nth(MAX_VALUE) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}...", text.get(..cut).unwrap_or_default()),
    }
}
