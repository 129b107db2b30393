//! YAML and JSON as trees whose nodes know where they stand, so that every finding can name its line.
//!
//! Plain scalars are read as kubectl reads them (YAML 1.1 booleans included), duplicate keys are kept for whoever judges
//! them, and aliases are copied, within bounds. Nothing here knows what a document means.

use std::collections::{HashMap, HashSet};
use std::fmt;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

/// Where a node begins. What a cluster sent stands nowhere: line 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 1; 0 is unknown.
    pub line: usize,
    /// From 1, in characters; 0 is unknown.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// `null`, or nothing at all.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// An object; a key may stand there twice.
    Map(Vec<Field>),
}

/// A key of an object and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// The value.
    pub value: Node,
}

/// Why a text is no YAML, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidYaml {
    /// Where reading ended.
    pub at: Position,
    message: String,
}

impl fmt::Display for InvalidYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The most nodes that anchors and aliases may add to a document: a few lines of YAML can ask for billions.
const MAX_COPIED: usize = 1_000_000;

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 100;

/// Reads every document of a YAML stream; JSON is YAML. Documents with nothing in them are left out.
///
/// # Errors
///
/// [`InvalidYaml`], for the first thing that is wrong.
pub fn read(text: &str) -> Result<Vec<Node>, InvalidYaml> {
    let mut reader = Reader::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| InvalidYaml {
            at: position(*error.marker()),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        reader.take(event, span)?;
    }
    Ok(reader.documents)
}

impl Node {
    /// The value under a key; the last one, if it stands there twice.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.fields().iter().rev().find(|field| field.key == key).map(|field| &field.value)
    }

    /// The value under keys within keys.
    #[must_use]
    pub fn within(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The fields of an object; none of anything else.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match &self.value {
            Value::Map(fields) => fields,
            _ => &[],
        }
    }

    /// The elements of a list; none of anything else.
    #[must_use]
    pub fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(list) => list,
            _ => &[],
        }
    }

    /// The elements of the list under a key; none if there is no list.
    #[must_use]
    pub fn elements(&self, key: &str) -> &[Node] {
        self.get(key).map(Node::list).unwrap_or_default()
    }

    /// A whole number that may be a port: 0 to 65535.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match &self.value {
            Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()),
            _ => None,
        }
    }

    /// The text of a text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_map(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    /// What a path of the filter's errors names, such as `registry[2].hosts[0]`, or the nearest thing around it that is
    /// there. Where the path ends at a key that is there twice, that is the second.
    #[must_use]
    pub fn find(&self, path: &str) -> &Node {
        let mut node = self;
        for step in steps(path) {
            let next = match step {
                Step::Index(index) => node.list().get(index),
                Step::Key(key) => node.get(&key),
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// The document as JSON text; a key that stands there twice does so in the JSON, too.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        self.write_json(&mut json);
        json
    }

    fn write_json(&self, json: &mut String) {
        match &self.value {
            Value::Null => json.push_str("null"),
            Value::Bool(flag) => json.push_str(if *flag { "true" } else { "false" }),
            Value::Number(number) => json.push_str(&number.to_string()),
            Value::Text(text) => push_text(json, text),
            Value::List(list) => {
                json.push('[');
                for (position, element) in list.iter().enumerate() {
                    if position > 0 {
                        json.push(',');
                    }
                    element.write_json(json);
                }
                json.push(']');
            }
            Value::Map(fields) => {
                json.push('{');
                for (position, field) in fields.iter().enumerate() {
                    if position > 0 {
                        json.push(',');
                    }
                    push_text(json, &field.key);
                    json.push(':');
                    field.value.write_json(json);
                }
                json.push('}');
            }
        }
    }

    /// The document as a JSON value; of a key that stands there twice the last counts.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(flag) => (*flag).into(),
            Value::Number(number) => number.clone().into(),
            Value::Text(text) => text.clone().into(),
            Value::List(list) => list.iter().map(Node::to_value).collect(),
            Value::Map(fields) => fields.iter().map(|field| (field.key.clone(), field.value.to_value())).collect(),
        }
    }
}

/// What a cluster sent: it stands nowhere.
impl From<serde_json::Value> for Node {
    fn from(value: serde_json::Value) -> Self {
        let value = match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(flag),
            serde_json::Value::Number(number) => Value::Number(number),
            serde_json::Value::String(text) => Value::Text(text),
            serde_json::Value::Array(list) => Value::List(list.into_iter().map(Node::from).collect()),
            serde_json::Value::Object(fields) => {
                let field = |(key, value)| Field { key, at: Position::default(), value: Node::from(value) };
                Value::Map(fields.into_iter().map(field).collect())
            }
        };
        Node { at: Position::default(), value }
    }
}

fn push_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

fn position(marker: saphyr_parser::Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

#[derive(Debug, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The steps of a path as `egress_filter::config` writes it: `a.b[2]["odd key"]`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let mut keys = serde_json::Deserializer::from_str(inner).into_iter::<serde_json::Value>();
            match keys.next() {
                Some(Ok(serde_json::Value::String(key))) => steps.push(Step::Key(key)),
                Some(Ok(serde_json::Value::Number(index))) => {
                    match index.as_u64().and_then(|i| usize::try_from(i).ok()) {
                        Some(index) => steps.push(Step::Index(index)),
                        None => break,
                    }
                }
                _ => break,
            }
            rest = inner.get(keys.byte_offset()..).unwrap_or_default().trim_start_matches(']');
        } else {
            let key = rest.trim_start_matches('.');
            let end = key.find(['.', '[']).unwrap_or(key.len());
            let (key, behind) = key.split_at(end);
            steps.push(Step::Key(key.to_owned()));
            rest = behind;
        }
    }
    steps
}

/// Builds trees from events.
#[derive(Default)]
struct Reader {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

/// A list or object that has not ended, with its anchor.
struct Open {
    node: Node,
    anchor: usize,
    /// The key whose value comes next.
    key: Option<(String, Position)>,
    /// What `<<` brings along: fields of their own win, wherever they stand.
    inherited: Vec<Field>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), InvalidYaml> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(InvalidYaml {
                        at,
                        message: "an alias to nothing: no anchor of this document that has ended has its name"
                            .to_owned(),
                    });
                };
                self.count(&node, at)?;
                self.add(node)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { at, value: scalar(&text, style, tag.as_deref()) };
                self.keep(anchor, &node, at)?;
                self.add(node)?;
            }
            Event::SequenceStart(anchor, _) => self.begin(at, Value::List(Vec::new()), anchor)?,
            Event::MappingStart(anchor, _) => self.begin(at, Value::Map(Vec::new()), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { mut node, anchor, inherited, .. }) = self.open.pop() {
                    if let Value::Map(fields) = &mut node.value {
                        inherit(fields, inherited);
                    }
                    self.keep(anchor, &node, at)?;
                    self.add(node)?;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, value: Value, anchor: usize) -> Result<(), InvalidYaml> {
        if self.open.len() >= MAX_DEPTH {
            return Err(InvalidYaml { at, message: format!("nested deeper than {MAX_DEPTH}") });
        }
        self.open.push(Open { node: Node { at, value }, anchor, key: None, inherited: Vec::new() });
        Ok(())
    }

    fn keep(&mut self, anchor: usize, node: &Node, at: Position) -> Result<(), InvalidYaml> {
        if anchor > 0 {
            self.count(node, at)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(())
    }

    /// Counts what is copied: for an anchor, whether anything refers to it or not, and for each alias.
    fn count(&mut self, node: &Node, at: Position) -> Result<(), InvalidYaml> {
        self.copied = self.copied.saturating_add(size(node));
        if self.copied > MAX_COPIED {
            let message = format!("anchors and aliases make more than {MAX_COPIED} nodes");
            return Err(InvalidYaml { at, message });
        }
        Ok(())
    }

    fn add(&mut self, node: Node) -> Result<(), InvalidYaml> {
        let Some(open) = self.open.last_mut() else {
            if node.value != Value::Null {
                self.documents.push(node);
            }
            return Ok(());
        };
        match &mut open.node.value {
            Value::List(list) => list.push(node),
            Value::Map(fields) => match open.key.take() {
                Some((key, at)) if key == "<<" => merge(&mut open.inherited, node, at)?,
                Some((key, at)) => fields.push(Field { key, at, value: node }),
                None => {
                    let key = match node.value {
                        Value::Text(text) => text,
                        Value::Number(number) => number.to_string(),
                        Value::Bool(flag) => flag.to_string(),
                        _ => return Err(InvalidYaml { at: node.at, message: "a key that is no text".to_owned() }),
                    };
                    open.key = Some((key, node.at));
                }
            },
            _ => {}
        }
        Ok(())
    }
}

/// `<<: *base`: of several the first wins.
fn merge(inherited: &mut Vec<Field>, from: Node, at: Position) -> Result<(), InvalidYaml> {
    let sources = match from.value {
        Value::List(list) => list,
        _ => vec![from],
    };
    for source in sources {
        let Value::Map(fields) = source.value else {
            return Err(InvalidYaml { at, message: "`<<` merges objects only".to_owned() });
        };
        inherited.extend(fields);
    }
    Ok(())
}

/// Adds the fields that are not there yet.
fn inherit(fields: &mut Vec<Field>, inherited: Vec<Field>) {
    if inherited.is_empty() {
        return;
    }
    let mut known: HashSet<String> = fields.iter().map(|field| field.key.clone()).collect();
    fields.extend(inherited.into_iter().filter(|field| known.insert(field.key.clone())));
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(list) => list.iter().map(size).sum(),
        Value::Map(fields) => fields.iter().map(|field| size(&field.value)).sum(),
        _ => 0,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    if style != ScalarStyle::Plain || tag.is_some_and(|tag| tag.suffix == "str") {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Value::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => number(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
    }
}

fn number(text: &str) -> Option<serde_json::Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let plain = digits.replace('_', "");
    let (radix, digits) = match plain.get(..2) {
        Some("0x" | "0X") => (16, plain.get(2..)?),
        Some("0b" | "0B") => (2, plain.get(2..)?),
        Some("0o" | "0O") => (8, plain.get(2..)?),
        // YAML 1.1: `0443` is 291.
        Some(_) if plain.starts_with('0') => (8, plain.get(1..)?),
        _ => (10, plain.as_str()),
    };
    let sign = if text.starts_with('-') { "-" } else { "" };
    if digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        if let Ok(whole) = i64::from_str_radix(&format!("{sign}{digits}"), radix) {
            return Some(whole.into());
        }
        if let (Ok(whole), "") = (u64::from_str_radix(digits, radix), sign) {
            return Some(whole.into());
        }
    }
    let text = format!("{sign}{plain}");
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64)
}

#[cfg(test)]
mod tests;
