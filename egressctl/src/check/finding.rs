//! A finding: which rule, where, and what to do; and the comments that silence one.

use serde::Serialize;

use crate::document::Node;
use crate::object::Object;
use crate::source::{Document, IGNORE, Location};

use super::rule::{Rule, Severity};

/// One thing that a rule found.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// That of the rule, or less.
    pub severity: Severity,
    /// Where.
    pub location: Location,
    /// In which object.
    pub object: String,
    /// What, and how to repair it.
    pub message: String,
}

/// For `-o json` and `-o yaml`.
#[derive(Serialize)]
struct Record<'a> {
    code: &'a str,
    name: &'a str,
    severity: Severity,
    file: &'a str,
    line: usize,
    column: usize,
    object: &'a str,
    message: &'a str,
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Record {
            code: self.rule.code,
            name: self.rule.name,
            severity: self.severity,
            file: &self.location.origin,
            line: self.location.at.line,
            column: self.location.at.column,
            object: &self.object,
            message: &self.message,
        }
        .serialize(serializer)
    }
}

/// What the rules have found so far.
#[derive(Debug, Default)]
pub struct Findings {
    /// In no particular order.
    pub found: Vec<Finding>,
    /// How many a comment has silenced.
    pub ignored: usize,
}

impl Findings {
    /// Adds a finding at a node of an object.
    pub fn add(&mut self, rule: &'static Rule, object: &Object<'_>, node: &Node, message: String) {
        self.add_as(rule, rule.severity, object, node, message);
    }

    /// Adds one that weighs less than the rule says.
    pub fn add_as(
        &mut self,
        rule: &'static Rule,
        severity: Severity,
        object: &Object<'_>,
        node: &Node,
        message: String,
    ) {
        self.put(rule, severity, object, object.document.locate(node), message);
    }

    /// Adds a finding at a place in the object's document.
    pub fn add_at(&mut self, rule: &'static Rule, object: &Object<'_>, location: Location, message: String) {
        self.put(rule, rule.severity, object, location, message);
    }

    fn put(
        &mut self,
        rule: &'static Rule,
        severity: Severity,
        object: &Object<'_>,
        location: Location,
        message: String,
    ) {
        if is_ignored(object.document, location.at.line, rule) {
            self.ignored += 1;
            return;
        }
        self.found.push(Finding { rule, severity, location, object: object.to_string(), message });
    }

    /// The findings in the order of the files.
    #[must_use]
    pub fn sorted(mut self) -> Vec<Finding> {
        self.found.sort_by(|a, b| (&a.location, a.rule.code, &a.message).cmp(&(&b.location, b.rule.code, &b.message)));
        // Through an anchor one text may stand in two objects.
        self.found.dedup_by(|a, b| (&a.location, a.rule, &a.message) == (&b.location, b.rule, &b.message));
        self.found
    }
}

/// Whether a comment on the line, or on a line of its own before it, says `egressctl:ignore CODE`.
fn is_ignored(document: &Document, line: usize, rule: &Rule) -> bool {
    let Some(index) = line.checked_sub(1) else {
        return false;
    };
    let says_so = |text: &str| {
        text.split_once(IGNORE).is_some_and(|(before, codes)| {
            before.contains('#') && codes.split([' ', ',', '\t']).any(|code| code == rule.code || code == rule.name)
        })
    };
    let own = document.lines.get(index).is_some_and(|text| says_so(text));
    let before = index.checked_sub(1).and_then(|index| document.lines.get(index));
    own || before.is_some_and(|text| text.trim_start().starts_with('#') && says_so(text))
}
