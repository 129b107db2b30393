//! What rendering has to say beside its output: problems that end it, and warnings where the filter cannot do what a
//! ServiceEntry or Sidecar does.

use std::fmt;

use crate::document::Node;
use crate::failure::Failure;
use crate::field::{InvalidObject, Problem, problem};
use crate::object::Object;

/// The most problems that are written out; the rest are counted.
const MAX_PROBLEMS: usize = 100;

/// Problems and warnings.
#[derive(Debug, Default)]
pub struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

/// A warning.
#[derive(Debug)]
pub enum Warning {
    /// About a field of an object.
    Field(Problem),
    /// About the whole.
    General(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Field(problem) => write!(f, "{problem}"),
            Warning::General(message) => f.write_str(message),
        }
    }
}

impl Findings {
    /// Keeps what is wrong with a field.
    pub fn problem(&mut self, object: Object<'_>, node: &Node, path: impl Into<String>, message: impl fmt::Display) {
        self.problems.push(problem(object, node, path, message));
    }

    /// Keeps what is wrong with an object; what is right with it is returned.
    pub fn take<T>(&mut self, read: Result<Option<T>, InvalidObject>) -> Option<T> {
        read.unwrap_or_else(|invalid| {
            self.problems.extend(invalid.problems);
            None
        })
    }

    /// Warns of a field.
    pub fn warn(&mut self, object: Object<'_>, node: &Node, path: impl Into<String>, message: impl fmt::Display) {
        self.warnings.push(Warning::Field(problem(object, node, path, message)));
    }

    /// Warns of something that is in no one object.
    pub fn warn_generally(&mut self, message: impl Into<String>) {
        self.warnings.push(Warning::General(message.into()));
    }

    /// The warnings: those of one object together, the general ones last.
    #[must_use]
    pub fn into_warnings(mut self) -> Vec<Warning> {
        self.warnings.sort_by(|a, b| match (a, b) {
            (Warning::Field(a), Warning::Field(b)) => (&a.object, &a.location).cmp(&(&b.object, &b.location)),
            (Warning::Field(_), Warning::General(_)) => std::cmp::Ordering::Less,
            (Warning::General(_), Warning::Field(_)) => std::cmp::Ordering::Greater,
            (Warning::General(_), Warning::General(_)) => std::cmp::Ordering::Equal,
        });
        self.warnings
    }

    /// # Errors
    ///
    /// All problems, if there is one.
    pub fn check(&mut self) -> Result<(), Failure> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by(|a, b| (&a.location, &a.object).cmp(&(&b.location, &b.object)));
        let mut text = "this cannot be rendered:".to_owned();
        for problem in self.problems.iter().take(MAX_PROBLEMS) {
            text.push_str(&format!("\n{problem}"));
        }
        if let Some(more @ 1..) = self.problems.len().checked_sub(MAX_PROBLEMS) {
            text.push_str(&format!("\nand {more} more"));
        }
        Err(Failure::new(text))
    }
}
