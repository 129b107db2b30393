//! Reading JSON without stopping at the first mistake.
//!
//! serde ends at a value of the wrong type. Here a [`Read`] takes what it can use of each kind of value, and everything
//! else becomes a [`Problem`] with its path, after which reading goes on. Only text that is no JSON ends it.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::problem::{InvalidConfig, MAX_PROBLEMS, MAX_VALUE, Problem, quoted};

/// A key stands in an object twice.
pub(super) const TWICE: &str = "the field stands there twice; keep one";

/// One step of a path.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Field(&'static str),
    Key(String),
    Index(usize),
}

/// Where reading is, and what was wrong so far.
#[derive(Debug, Default)]
pub(super) struct Context {
    path: Vec<Step>,
    problems: Vec<Problem>,
    more: usize,
}

impl Context {
    pub(super) fn enter(&mut self, step: Step) {
        self.path.push(step);
    }

    pub(super) fn leave(&mut self) {
        self.path.pop();
    }

    /// From one element of a list to the next.
    pub(super) fn next_element(&mut self) {
        if let Some(Step::Index(index)) = self.path.last_mut() {
            *index += 1;
        }
    }

    /// The problem with the text that is being read.
    #[inline(never)]
    pub(super) fn problem(&mut self, text: &str, message: &dyn fmt::Display) {
        self.add(Some(quoted(text)), message.to_string());
    }

    /// A problem that no single value has.
    #[inline(never)]
    pub(super) fn complain(&mut self, message: &dyn fmt::Display) {
        self.add(None, message.to_string());
    }

    pub(super) fn problems(&self) -> usize {
        self.problems.len() + self.more
    }

    /// Reading ended at text that is no JSON, somewhere below the path's first `depth` steps. Lines and columns count from
    /// there.
    pub(super) fn not_json(&mut self, depth: usize, error: &serde_json::Error) {
        self.path.truncate(depth);
        let from = if depth == 0 { "" } else { " (counted from the start of this value)" };
        self.complain(&format_args!("not valid JSON: {error}{from}"));
    }

    pub(super) fn finish(self) -> Result<(), InvalidConfig> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(InvalidConfig { problems: self.problems, more: self.more })
    }

    /// The next field of an object that is one of `known`. Unknown and repeated ones are problems and passed over.
    ///
    /// `seen` has a bit for each of `known`.
    pub(super) fn field<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        known: &'static [&'static str],
        seen: &mut u32,
    ) -> Result<Option<&'static str>, A::Error> {
        while let Some(key) = map.next_key_seed(KeySeed)? {
            let Some((position, field)) = known.iter().enumerate().find(|(_, field)| **field == key) else {
                self.enter(Step::Key(key.clone().into_owned()));
                self.complain(&unknown("field", &key, known));
                self.leave();
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let bit = 1 << position;
            if *seen & bit != 0 {
                self.enter(Step::Field(field));
                self.complain(&TWICE);
                self.leave();
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            *seen |= bit;
            return Ok(Some(field));
        }
        Ok(None)
    }

    /// Reads the value of a field.
    pub(super) fn value<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
        field: &'static str,
        read: impl Read<'de>,
    ) -> Result<(), A::Error> {
        self.enter(Step::Field(field));
        let result = map.next_value_seed(Value { cx: self, read });
        self.leave();
        result
    }

    #[inline(never)]
    fn mismatch(&mut self, value: Option<String>, found: &str, expected: &str) {
        self.add(value, format!("{found}; expected {expected}"));
    }

    fn add(&mut self, value: Option<String>, message: String) {
        if self.problems.len() >= MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        let path = self.path();
        self.problems.push(Problem { path, value, message });
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Field(name) => push_name(&mut path, name),
                Step::Key(name) => push_name(&mut path, name),
            }
        }
        path
    }
}

fn push_name(path: &mut String, name: &str) {
    if name.is_empty()
        || name.len() > MAX_VALUE
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-/".contains(&byte))
    {
        path.push_str(&format!("[{}]", quoted(name)));
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// `unknown field; did you mean "hosts"? known are ...`.
pub(super) fn unknown(what: &str, given: &str, known: &[&str]) -> String {
    let folded = given.to_ascii_lowercase();
    let distance = |name: &&&str| strsim::levenshtein(&folded, &name.to_ascii_lowercase());
    let nearest = if given.len() > 64 { None } else { known.iter().min_by_key(distance) };
    let near = nearest.filter(|name| distance(name) <= 1 + name.len() / 4);
    let all = known.join(", ");
    match near {
        Some(near) => format!("unknown {what}; did you mean {near:?}? known: {all}"),
        None => format!("unknown {what}; known: {all}"),
    }
}

/// Takes one JSON value of the kinds that it expects.
pub(super) trait Read<'de>: Sized {
    /// What it expects, as messages say it.
    const EXPECTED: &'static str;

    fn expected(&self) -> Cow<'static, str> {
        Cow::Borrowed(Self::EXPECTED)
    }

    /// `null`, which YAML makes of a field with nothing behind it. A template that came out empty must open nothing, so it
    /// is not taken for the default.
    fn null(self, cx: &mut Context) {
        cx.complain(&"nothing; give it a value or leave the field out");
    }

    fn text(self, cx: &mut Context, text: &str) {
        cx.mismatch(Some(quoted(text)), "a text", &self.expected());
    }

    /// A whole number; `None` for any other.
    fn number(self, cx: &mut Context, number: Option<i64>) {
        cx.mismatch(number.map(|number| number.to_string()), "a number", &self.expected());
    }

    fn flag(self, cx: &mut Context, flag: bool) {
        cx.mismatch(Some(flag.to_string()), "a boolean", &self.expected());
    }

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, seq: A) -> Result<(), A::Error> {
        cx.mismatch(None, "a list", &self.expected());
        skip_list(seq)
    }

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, map: A) -> Result<(), A::Error> {
        cx.mismatch(None, "an object", &self.expected());
        skip_object(map)
    }
}

// Not within the trait, where each implementation would have a copy: the module's size counts.

#[inline(never)]
fn skip_list<'de, A: SeqAccess<'de>>(mut seq: A) -> Result<(), A::Error> {
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

#[inline(never)]
fn skip_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Reads one value with a [`Read`].
pub(super) struct Value<'c, R> {
    pub(super) cx: &'c mut Context,
    pub(super) read: R,
}

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Value<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Value<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.read.expected())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.read.null(self.cx);
        Ok(())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<(), E> {
        self.read.flag(self.cx, flag);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.read.number(self.cx, Some(number));
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.read.number(self.cx, Some(i64::try_from(number).unwrap_or(i64::MAX)));
        Ok(())
    }

    /// A whole number may be written as `443.0`: some tools know only floating point.
    #[allow(clippy::cast_possible_truncation, reason = "checked to be whole and small")]
    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        let whole = number.fract() == 0.0 && number.abs() < 1e15;
        self.read.number(self.cx, whole.then_some(number as i64));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.read.text(self.cx, text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        self.read.list(self.cx, seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.read.object(self.cx, map)
    }
}

/// What takes a text. A `dyn`, so that the code around it exists once: the module's size counts.
pub(super) type Take<'a> = &'a mut dyn FnMut(&mut Context, &str);

/// A text.
pub(super) struct Text<'a>(pub(super) Take<'a>);

impl Read<'_> for Text<'_> {
    const EXPECTED: &'static str = "a text";

    fn text(self, cx: &mut Context, text: &str) {
        self.0(cx, text);
    }
}

/// A list of texts; the first field says of what.
pub(super) struct Names<'a>(pub(super) &'static str, pub(super) Take<'a>);

impl<'de> Read<'de> for Names<'_> {
    const EXPECTED: &'static str = "a list";

    fn expected(&self) -> Cow<'static, str> {
        Cow::Owned(format!("a list of {}", self.0))
    }

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, mut seq: A) -> Result<(), A::Error> {
        cx.enter(Step::Index(0));
        while seq.next_element_seed(Value { cx, read: Element(&mut *self.1) })?.is_some() {
            cx.next_element();
        }
        cx.leave();
        Ok(())
    }
}

struct Element<'a>(Take<'a>);

impl Read<'_> for Element<'_> {
    const EXPECTED: &'static str = "a text";

    fn null(self, cx: &mut Context) {
        cx.complain(&"nothing; expected a text");
    }

    fn text(self, cx: &mut Context, text: &str) {
        (self.0)(cx, text);
    }
}

/// `true` or `false`.
pub(super) struct Flag<'a>(pub(super) &'a mut bool);

impl Read<'_> for Flag<'_> {
    const EXPECTED: &'static str = "true or false";

    fn flag(self, _: &mut Context, flag: bool) {
        *self.0 = flag;
    }
}

/// A whole number within bounds.
pub(super) struct Number<'a>(pub(super) RangeInclusive<u32>, pub(super) &'a mut u32);

impl Read<'_> for Number<'_> {
    const EXPECTED: &'static str = "a number";

    fn expected(&self) -> Cow<'static, str> {
        Cow::Owned(format!("a whole number from {} to {}", self.0.start(), self.0.end()))
    }

    fn number(self, cx: &mut Context, number: Option<i64>) {
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) if self.0.contains(&number) => *self.1 = number,
            _ => {
                let expected = self.expected();
                cx.add(number.map(|number| number.to_string()), format!("must be {expected}"));
            }
        }
    }
}

/// One of a few texts, each standing for a value.
pub(super) struct Name<'a, T>(pub(super) &'a [(&'static str, T)], pub(super) &'a mut T);

impl<T: Copy> Read<'_> for Name<'_, T> {
    const EXPECTED: &'static str = "one of a few texts";

    fn expected(&self) -> Cow<'static, str> {
        Cow::Owned(self.0.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(" or "))
    }

    fn text(self, cx: &mut Context, text: &str) {
        match self.0.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *self.1 = *value,
            None => {
                let known: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
                cx.problem(text, &unknown("value", text, &known));
            }
        }
    }
}

/// A key, borrowed where it can be.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(KeyVisitor(PhantomData))
    }
}

struct KeyVisitor<'de>(PhantomData<&'de str>);

impl<'de> Visitor<'de> for KeyVisitor<'de> {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
