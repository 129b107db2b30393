//! How commands print: tables for people, JSON and YAML for programs, colours on a terminal only.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// `-o`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// What a command found, and with it the exit code: 0 or 1. A [`Failure`] is 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to find fault with; allowed.
    Clean,
    /// Findings, differences, or denied.
    Findings,
}

impl Outcome {
    /// Findings if there are any.
    #[must_use]
    pub fn of_findings(any: bool) -> Self {
        if any { Outcome::Findings } else { Outcome::Clean }
    }
}

/// What went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What did not.
pub const BAD: Style = AnsiColor::Red.on_default();
/// What wants attention.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What matters less.
pub const DIM: Style = Style::new().dimmed();
/// What stands out.
pub const BOLD: Style = Style::new().bold();

/// A text in a style. Whether the style shows is decided by the stream it is written to (see [`anstream`]).
#[must_use]
pub fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Writes a value as one document of JSON or YAML.
///
/// # Errors
///
/// The output cannot be written.
pub fn document(out: &mut dyn Write, format: Format, value: &impl Serialize) -> Result<()> {
    match format {
        Format::Json | Format::Table => writeln!(out, "{}", json(value)?)?,
        Format::Yaml => write!(out, "{}", yaml(value)?)?,
    }
    Ok(())
}

/// A value as indented JSON.
///
/// # Errors
///
/// A key that is no text: a mistake in this program.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::new(format!("no JSON can be made of this: {error}")))
}

/// A value as YAML, with a line break at its end.
///
/// # Errors
///
/// A value that YAML cannot hold: a mistake in this program.
pub fn yaml(value: &impl Serialize) -> Result<String> {
    let mut text = serde_saphyr::to_string(value)
        .map_err(|error| Failure::new(format!("no YAML can be made of this: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// A table as kubectl prints them: columns two spaces apart, no lines. Cells may be styled.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings, in upper case.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        Table { rows: vec![header.iter().map(|&text| text.to_owned()).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn write(&self, out: &mut dyn Write) -> Result<()> {
        let mut table = tabled::builder::Builder::from_iter(&self.rows).build();
        table.with(tabled::settings::Style::empty()).with(tabled::settings::Padding::new(0, 2, 0, 0));
        for line in table.to_string().lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_styled_cells_like_plain_ones() {
        let mut table = Table::new(&["HOST", "PORT"]);
        table.row(vec![styled(BAD, "a.example"), "443".to_owned()]);
        table.row(vec!["longer.example".to_owned(), "80".to_owned()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let plain = anstream::adapter::strip_bytes(&out).into_vec();
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            "HOST            PORT\na.example       443\nlonger.example  80\n"
        );
    }

    #[test]
    fn writes_yaml_that_is_read_back() {
        let value =
            serde_json::json!({"hosts": ["*.a.example", "yes", "12", "~", "a: b", ""], "at": "2027-01-31T00:00:00Z"});
        let text = yaml(&value).unwrap();
        let read = crate::document::read(&text).unwrap();
        assert_eq!(read.first().map(crate::document::Node::to_value), Some(value), "{text}");
    }
}
