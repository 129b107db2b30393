//! Reads the fields of an object and keeps every problem: which object, which field, what stands there, how to repair it.
//!
//! What is missing or `null` is left out, as the API server does it. What a field means is for whoever reads it.

use std::fmt;

use crate::document::{Node, Value};
use crate::object::Object;
use crate::source::Location;

/// A text and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// The text.
    pub text: &'a str,
    /// Where it stands.
    pub node: &'a Node,
}

/// An element of a list and its path.
#[derive(Debug)]
pub struct Element<'a> {
    /// Such as `spec.ports[0]`.
    pub path: String,
    /// The element.
    pub node: &'a Node,
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub location: Location,
    /// Such as `ServiceEntry shop/stripe`.
    pub object: String,
    /// Such as `spec.ports[0].number`.
    pub path: String,
    /// What stands there, if it is short.
    pub value: Option<String>,
    /// What is wrong with it, and the repair.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}: ", self.location, self.object, self.path)?;
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with an object, one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidObject {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidObject {}

/// Reads one object.
#[derive(Debug)]
pub struct FieldReader<'a> {
    object: Object<'a>,
    problems: Vec<Problem>,
}

impl<'a> FieldReader<'a> {
    /// A reader of `object` that has found nothing wrong yet.
    #[must_use]
    pub fn new(object: Object<'a>) -> Self {
        FieldReader { object, problems: Vec::new() }
    }

    /// What was read, if nothing was wrong.
    ///
    /// # Errors
    ///
    /// Every problem, in the order in which they were found.
    pub fn finish<T>(self, read: T) -> Result<T, InvalidObject> {
        if self.problems.is_empty() { Ok(read) } else { Err(InvalidObject { problems: self.problems }) }
    }

    /// Says what is wrong with `node`, which stands at `path`.
    pub fn complain(&mut self, node: &Node, path: impl Into<String>, message: impl fmt::Display) {
        self.problems.push(problem(self.object, node, path, message));
    }

    /// The object under `key`.
    pub fn map(&mut self, parent: &'a Node, path: &str, key: &str) -> Option<&'a Node> {
        let node = present(parent, key)?;
        if !node.is_map() {
            self.complain(node, join(path, key), "expected an object");
            return None;
        }
        Some(node)
    }

    /// The text under `key`.
    pub fn text(&mut self, parent: &'a Node, path: &str, key: &str) -> Option<Text<'a>> {
        let node = present(parent, key)?;
        let text = node.text();
        if text.is_none() {
            self.complain(node, join(path, key), "expected a text; put it in quotes");
        }
        Some(Text { text: text?, node })
    }

    /// The port number under `key`: 0 to 65535, or `None`, which was said unless nothing stands there.
    pub fn port(&mut self, parent: &'a Node, path: &str, key: &str) -> Option<u16> {
        let node = present(parent, key)?;
        let number = node.port();
        if number.is_none() {
            self.complain(node, join(path, key), "not a port; use a number from 1 to 65535, without quotes");
        }
        number
    }

    /// The elements of the list under `key`.
    pub fn list(&mut self, parent: &'a Node, path: &str, key: &str) -> Vec<Element<'a>> {
        let Some(node) = present(parent, key) else {
            return Vec::new();
        };
        let path = join(path, key);
        let Value::List(list) = &node.value else {
            self.complain(node, path, "expected a list");
            return Vec::new();
        };
        list.iter().enumerate().map(|(index, node)| Element { path: format!("{path}[{index}]"), node }).collect()
    }

    /// The texts of the list under `key`.
    pub fn texts(&mut self, parent: &'a Node, path: &str, key: &str) -> Vec<Text<'a>> {
        let mut texts = Vec::new();
        for Element { path, node } in self.list(parent, path, key) {
            match node.text() {
                Some(text) => texts.push(Text { text, node }),
                None => self.complain(node, path, "expected a text; put it in quotes"),
            }
        }
        texts
    }
}

/// A problem of `object` with `node`, which stands at `path`.
#[must_use]
pub fn problem(object: Object<'_>, node: &Node, path: impl Into<String>, message: impl fmt::Display) -> Problem {
    let value = match &node.value {
        Value::Null | Value::List(_) | Value::Map(_) => None,
        _ => Some(node.to_json()),
    };
    let location = if node.at.line == 0 { object.location() } else { object.document.locate(node) };
    Problem { location, object: object.to_string(), path: path.into(), value, message: message.to_string() }
}

fn present<'a>(parent: &'a Node, key: &str) -> Option<&'a Node> {
    parent.get(key).filter(|node| node.value != Value::Null)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
