//! From one line to its evidence: which format it has is found out for each line, because files mix them.

use std::borrow::Cow;

use super::evidence::Evidence;
use super::fields::{Field, Fields};
use super::json::{self, Names};
use super::template::Template;
use super::wrapper::{self, Around};
use super::{Skip, scan::Origin};

/// `--log-format`.
#[derive(Clone, Debug)]
pub enum Format {
    /// A text format.
    Text(Template),
    /// What the fields of JSON lines are called.
    Json(Names),
}

impl Format {
    /// Reads a format string, or a JSON object of them.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim_start().starts_with('{') {
            Names::parse(text).map(Format::Json)
        } else {
            Template::parse(text).map(Format::Text).map_err(|invalid| invalid.to_string())
        }
    }
}

/// Reads lines.
#[derive(Clone, Debug)]
pub struct Reader {
    templates: Vec<Template>,
    names: Names,
}

impl Reader {
    /// A reader of one format, or of all that are known: JSON, Istio's text and Envoy's.
    #[must_use]
    pub fn new(format: Option<Format>) -> Self {
        match format {
            Some(Format::Text(template)) => Reader { templates: vec![template], names: Names::Known },
            Some(Format::Json(names)) => Reader { templates: Vec::new(), names },
            None => {
                let known = [Template::ISTIO, Template::ENVOY];
                let templates = known.into_iter().filter_map(|format| Template::parse(format).ok());
                Reader { templates: templates.collect(), names: Names::Known }
            }
        }
    }

    /// Reads a line and hands over its evidence and time (as it stands there, or empty).
    ///
    /// # Errors
    ///
    /// Why it is no call.
    pub fn read<T>(
        &self,
        line: &[u8],
        origin: &Origin,
        take: impl FnOnce(&Evidence<'_>, &str) -> T,
    ) -> Result<T, Skip> {
        let line = line.trim_ascii_end();
        // Nearly all are text, and to find just that out is faster.
        let text = std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed);
        if text.is_empty() {
            return Err(Skip::Blank);
        }
        let (around, rest) =
            if text.starts_with('{') { (Around::default(), text.as_ref()) } else { wrapper::unwrap(&text) };
        if around.is_split {
            return Err(Skip::Split);
        }
        if let Some(fields) = self.of_text(rest) {
            return judge(&fields, &around, origin, take);
        }
        if !rest.starts_with('{') {
            return Err(Skip::Foreign);
        }
        let line = json::read(rest, &self.names).ok_or(Skip::Foreign)?;
        let time = if line.time.is_empty() { around.time } else { line.time.as_ref() };
        match line.wrapped {
            Some(inner) if !self.is_known(&line.fields) => self.read_wrapped(&inner, &line.fields, time, origin, take),
            _ if self.is_known(&line.fields) => judge(&line.fields, &Around { time, ..around }, origin, take),
            _ => Err(Skip::Foreign),
        }
    }

    /// A line that a collector put into JSON as text, with what it says of the pod.
    fn read_wrapped<T>(
        &self,
        inner: &str,
        outer: &Fields<'_>,
        time: &str,
        origin: &Origin,
        take: impl FnOnce(&Evidence<'_>, &str) -> T,
    ) -> Result<T, Skip> {
        let (around, rest) = wrapper::unwrap(inner.trim_ascii_end());
        let fields = match self.of_text(rest) {
            Some(fields) => fields,
            None => {
                let line = json::read(rest, &self.names).ok_or(Skip::Foreign)?;
                if !self.is_known(&line.fields) {
                    return Err(Skip::Foreign);
                }
                line.fields
            }
        };
        let around = Around {
            namespace: or(outer.value(Field::Namespace), around.namespace),
            pod: or(outer.value(Field::Pod), around.pod),
            time: or(time, around.time),
            is_split: false,
        };
        judge(&fields, &around, origin, take)
    }

    fn of_text<'a>(&self, line: &'a str) -> Option<Fields<'a>> {
        self.templates.iter().find_map(|template| template.read(line))
    }

    fn is_known(&self, fields: &Fields<'_>) -> bool {
        match self.names {
            Names::Known => fields.is_of_access_log(),
            Names::Given(_) => {
                fields.has(Field::Authority)
                    || fields.has(Field::ServerName)
                    || fields.has(Field::Destination)
                    || fields.has(Field::Host)
            }
        }
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

fn judge<T>(
    fields: &Fields<'_>,
    around: &Around<'_>,
    origin: &Origin,
    take: impl FnOnce(&Evidence<'_>, &str) -> T,
) -> Result<T, Skip> {
    let around_it = or(or(around.namespace, &origin.namespace), &origin.assumed_namespace);
    let namespace = or(fields.value(Field::Namespace), around_it);
    let pod = or(or(fields.value(Field::Pod), around.pod), &origin.pod);
    let workload = match fields.value(Field::Workload) {
        "" => or(wrapper::workload_of(pod), &origin.assumed_workload),
        workload => workload,
    };
    let evidence = Evidence::of(fields, namespace, workload)?;
    Ok(take(&evidence, or(fields.value(Field::Time), around.time)))
}
