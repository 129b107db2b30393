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

/// Standard output: see [`Printable`].
#[must_use]
pub fn stdout() -> impl Write {
    Printable::new(anstream::stdout())
}

/// Standard error: see [`Printable`].
#[must_use]
pub fn stderr() -> impl Write {
    Printable::new(anstream::stderr())
}

/// Lets nothing through that a terminal obeys, save line breaks, tabs and the styles of this program: names in files, of
/// files and in logs may hold anything. A `?` stands for the rest.
#[derive(Debug)]
pub struct Printable<W> {
    inner: W,
    /// The begin of what may be a style or a character of two bytes.
    begun: Vec<u8>,
}

impl<W: Write> Printable<W> {
    /// Writes to `inner` what is printable.
    #[must_use]
    pub fn new(inner: W) -> Self {
        Printable { inner, begun: Vec::new() }
    }

    fn take(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.begun.as_slice(), byte) {
            // C1 controls: 0x9b alone is what ESC [ is.
            ([LEAD_OF_C1], 0x80..=0x9f) => {
                self.begun.clear();
                out.push(b'?');
                return;
            }
            ([LEAD_OF_C1], _) => out.append(&mut self.begun),
            ([ESCAPE], b'[') | ([ESCAPE, b'[', ..], b'0'..=b'9') if self.begun.len() < LONGEST_STYLE => {
                self.begun.push(byte);
                return;
            }
            ([ESCAPE, b'[', number @ ..], b'm') if STYLES.contains(&number) => {
                out.append(&mut self.begun);
                out.push(byte);
                return;
            }
            ([ESCAPE, rest @ ..], _) => {
                out.push(b'?');
                out.extend_from_slice(rest);
                self.begun.clear();
            }
            _ => {}
        }
        match byte {
            ESCAPE | LEAD_OF_C1 => self.begun.push(byte),
            b'\n' | b'\t' => out.push(byte),
            0..=0x1f | 0x7f => out.push(b'?'),
            _ => out.push(byte),
        }
    }
}

impl<W: Write> Write for Printable<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.take(*byte, &mut out);
        }
        self.inner.write_all(&out)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

const ESCAPE: u8 = 0x1b;

/// The first of the two bytes of U+0080 to U+00BF in UTF-8.
const LEAD_OF_C1: u8 = 0xc2;

/// The numbers of [`GOOD`], [`BAD`], [`WARNING`], [`DIM`] and [`BOLD`], and of their end.
const STYLES: [&[u8]; 6] = [b"0", b"1", b"2", b"31", b"32", b"33"];

/// How long a style is without its `m`.
const LONGEST_STYLE: usize = 4;

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
    fn lets_nothing_through_that_a_terminal_obeys() {
        for (text, expected) in [
            (styled(BAD, "a"), "\u{1b}[31ma\u{1b}[0m"),
            (styled(DIM, "é ü\u{a0}\tx\n"), "\u{1b}[2mé ü\u{a0}\tx\n\u{1b}[0m"),
            ("\u{1b}[2Ja".to_owned(), "?[2Ja"),
            ("\u{1b}]0;title\u{7}".to_owned(), "?]0;title?"),
            ("\u{1b}[8mhidden".to_owned(), "?[8mhidden"),
            ("\u{1b}\u{1b}[1mb".to_owned(), "?\u{1b}[1mb"),
            ("\u{1b}[\u{1b}[0m".to_owned(), "?[\u{1b}[0m"),
            ("\u{1b}[31311m\r\u{8}\u{7f}\0".to_owned(), "?[31311m????"),
            ("\u{9b}2J\u{85}".to_owned(), "?2J?"),
        ] {
            // However it is cut up.
            for size in 1..=text.len() {
                let mut out = Printable::new(Vec::new());
                for part in text.as_bytes().chunks(size) {
                    out.write_all(part).unwrap();
                }
                assert_eq!(String::from_utf8(out.inner).unwrap(), expected, "{text:?} by {size}");
            }
        }
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
