//! Access log lines in JSON, and the JSON that log collectors wrap lines in.
//!
//! Read in one pass, without a copy of anything that has no escapes in it; what is not asked for is skipped.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::fields::{Field, Fields};

/// What the fields of JSON lines are called.
#[derive(Clone, Debug)]
pub enum Names {
    /// As [`Field::of_key`] knows them.
    Known,
    /// As `--log-format '{"...": "%...%"}'` has them.
    Given(HashMap<String, Field>),
}

impl Names {
    /// Reads a format such as `{"host": "%REQ(:AUTHORITY)%"}`; what it does not name is called as always.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn parse(format: &str) -> Result<Self, String> {
        let keys: HashMap<String, serde_json::Value> =
            serde_json::from_str(format).map_err(|error| format!("no JSON object: {error}"))?;
        let operator =
            |value: &serde_json::Value| Field::of_operator(value.as_str()?.strip_prefix('%')?.strip_suffix('%')?);
        let given: HashMap<_, _> = keys.into_iter().filter_map(|(key, value)| Some((key, operator(&value)?))).collect();
        let telling = [Field::Authority, Field::ServerName, Field::Destination, Field::Host];
        if given.values().any(|field| telling.contains(field)) {
            Ok(Names::Given(given))
        } else {
            Err("no field has %REQ(:AUTHORITY)%, %REQUESTED_SERVER_NAME% or %DOWNSTREAM_LOCAL_ADDRESS%".to_owned())
        }
    }

    fn key(&self, key: &str) -> Key {
        let field = match self {
            Names::Known => Field::of_key(key),
            Names::Given(given) => given.get(key).copied(),
        };
        match (field, key) {
            (Some(field), _) => Key::Field(field),
            (None, "log" | "message" | "log_processed") => Key::Line,
            (None, "kubernetes") => Key::Kubernetes,
            (None, "time" | "timestamp" | "@timestamp") => Key::Time,
            _ => Key::Other,
        }
    }
}

/// What a line of JSON has.
#[derive(Debug, Default)]
pub struct JsonLine<'a> {
    /// Its values, and those of what it wraps.
    pub fields: Fields<'a>,
    /// The line that a collector wrapped as text.
    pub wrapped: Option<Cow<'a, str>>,
    /// When the collector read it.
    pub time: Cow<'a, str>,
}

/// Reads a line; `None` if it is no JSON object.
pub fn read<'a>(line: &'a str, names: &Names) -> Option<JsonLine<'a>> {
    let mut read = JsonLine::default();
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let object = Object { line: &mut read, names, depth: 0 };
    object.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(read)
}

/// How deep collectors nest: an object in an object in the line.
const MAX_DEPTH: usize = 2;

#[derive(Clone, Copy)]
enum Key {
    Field(Field),
    Line,
    Kubernetes,
    Time,
    Other,
}

struct Object<'l, 'a> {
    line: &'l mut JsonLine<'a>,
    names: &'l Names,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Object<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed(self.names))? {
            match key {
                Key::Field(field) => {
                    let text: Text<'de> = map.next_value()?;
                    self.line.fields.set(field, text.0);
                }
                Key::Line => {
                    map.next_value_seed(Wrapped(Object { depth: self.depth + 1, names: self.names, line: self.line }))?;
                }
                Key::Kubernetes => {
                    map.next_value_seed(Kubernetes(&mut self.line.fields))?;
                }
                Key::Time => self.line.time = map.next_value::<Text<'de>>()?.0,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

struct KeySeed<'n>(&'n Names);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Key, E> {
        Ok(self.0.key(key))
    }
}

/// A text; whatever else stands there is an empty one.
struct Text<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed("")))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed("")))
    }

    /// Of all numbers only one response code counts.
    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(if number == 403 { "403" } else { "" })))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed("")))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed("")))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text(Cow::Borrowed("")))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text(Cow::Borrowed("")))
    }
}

/// A line within the line: as text, or taken apart by the collector.
struct Wrapped<'l, 'a>(Object<'l, 'a>);

impl<'de> DeserializeSeed<'de> for Wrapped<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Wrapped<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.0.line.wrapped = Some(Cow::Borrowed(text));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.line.wrapped = Some(Cow::Owned(text.to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        TextVisitor.visit_seq(seq).map(|_| ())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        if self.0.depth > MAX_DEPTH { TextVisitor.visit_map(map).map(|_| ()) } else { self.0.visit_map(map) }
    }
}

/// What Fluent Bit (`namespace_name`) and Vector (`pod_namespace`) say of the pod.
struct Kubernetes<'l, 'a>(&'l mut Fields<'a>);

impl<'de> DeserializeSeed<'de> for Kubernetes<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Kubernetes<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'de>>()? {
            let field = match key.0.as_ref() {
                "namespace_name" | "pod_namespace" => Field::Namespace,
                "pod_name" => Field::Pod,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let text: Text<'de> = map.next_value()?;
            // What the line itself says is more exact.
            if self.0.value(field).is_empty() {
                self.0.set(field, text.0);
            }
        }
        Ok(())
    }
}
