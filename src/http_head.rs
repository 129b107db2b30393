//! The first request head of a connection that Envoy does not parse as HTTP, as far as its authority.
//!
//! A [`HeadReader`] takes the bytes as they come and says whether they are HTTP/1 at all and whom the first request is
//! for, by RFC 9112, section 3.2: the authority of a request target in absolute or authority form, otherwise Host. It
//! looks at each byte once. What a lenient server might read as another host than a strict one (two Hosts, a folded
//! Host, a bare CR, a NUL) is no name.
//!
//! Later requests of the connection are not looked at. HTTP/2 is recognised by its preface; its headers are not read,
//! because a client may send none before it has heard from the server.

use crate::name::{Authority, InvalidName};

/// The most bytes of a head, request line and empty line included. Servers take 8 to 64 KiB; the limit bounds what one
/// connection can make a sidecar hold.
pub const MAX_HEAD: usize = 64 * 1024;

/// The longest method, in bytes. Those that are registered with IANA have up to 17.
const MAX_METHOD: usize = 32;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads a request head piece by piece.
#[derive(Debug, Default)]
pub struct HeadReader {
    part: Part,
    /// The line that is being read, as far as it is there.
    line: Vec<u8>,
    /// The value of Host.
    host: Option<Vec<u8>>,
    /// All bytes that were read, save those that may still be of an HTTP/2 preface.
    read: usize,
    preface: Preface,
}

/// Where in a head the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Method,
    Target,
    Headers,
}

/// Whether the bytes so far are those of the HTTP/2 preface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preface {
    /// As many as this.
    SoFar(usize),
    No,
}

impl Default for Preface {
    fn default() -> Self {
        Preface::SoFar(0)
    }
}

/// What is known after some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The bytes so far may be the start of a request.
    NeedsMore,
    /// The bytes are no HTTP request.
    NotHttp,
    /// The whole HTTP/2 preface is there.
    Http2,
    /// The first request is there, as far as whom it is for.
    Request(RequestFor<'a>),
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFor<'a> {
    /// The authority, or why there is none that can be relied on.
    pub authority: Result<Authority<'a>, InvalidName>,
    /// Whether the method is CONNECT, so that the authority's port counts (RFC 9110, section 9.3.6).
    pub is_connect: bool,
}

impl HeadReader {
    /// Takes the bytes that follow those of the last call. After anything but [`Progress::NeedsMore`] it is done.
    pub fn read(&mut self, bytes: &[u8]) -> Progress<'_> {
        for &byte in bytes {
            match self.take(byte) {
                Step::More => {}
                Step::NotHttp => return Progress::NotHttp,
                Step::Http2 => return Progress::Http2,
                Step::RequestLine => {
                    // Only now is the line whole, so that it can be borrowed from.
                    return Progress::Request(self.named_by_target());
                }
                Step::Head => return Progress::Request(self.named_by_host()),
                Step::Invalid(invalid) => {
                    return Progress::Request(RequestFor { authority: Err(invalid), is_connect: false });
                }
            }
        }
        Progress::NeedsMore
    }

    /// Whether a request line was read, so that what follows can be nothing but HTTP.
    #[must_use]
    pub fn is_surely_http(&self) -> bool {
        self.part == Part::Headers
    }

    fn take(&mut self, byte: u8) -> Step {
        let Preface::SoFar(count) = self.preface else {
            return self.take_of_request(byte);
        };
        if PREFACE.get(count) == Some(&byte) {
            self.preface = Preface::SoFar(count + 1);
            return if count + 1 == PREFACE.len() { Step::Http2 } else { Step::More };
        }
        self.preface = Preface::No;
        for &before in PREFACE.iter().take(count) {
            match self.take_of_request(before) {
                Step::More => {}
                step => return step,
            }
        }
        self.take_of_request(byte)
    }

    fn take_of_request(&mut self, byte: u8) -> Step {
        self.read += 1;
        if self.read > MAX_HEAD {
            return if self.part == Part::Method { Step::NotHttp } else { Step::Invalid(InvalidName::TooLong) };
        }
        match self.part {
            Part::Method => self.take_of_method(byte),
            Part::Target => self.take_of_target(byte),
            Part::Headers => self.take_of_headers(byte),
        }
    }

    fn take_of_method(&mut self, byte: u8) -> Step {
        match byte {
            // A server should ignore empty lines before the request line (RFC 9112, section 2.2).
            b'\r' | b'\n' if self.line.is_empty() => {}
            b' ' if !self.line.is_empty() => {
                self.line.push(byte);
                self.part = Part::Target;
            }
            byte if is_token(byte) && self.line.len() < MAX_METHOD => self.line.push(byte),
            _ => return Step::NotHttp,
        }
        Step::More
    }

    fn take_of_target(&mut self, byte: u8) -> Step {
        match byte {
            b'\n' => match RequestLine::parse(&self.line) {
                None => Step::NotHttp,
                Some(line) if line.authority.is_some() => Step::RequestLine,
                Some(_) => {
                    self.line.clear();
                    self.part = Part::Headers;
                    Step::More
                }
            },
            b'\r' if self.line.last() != Some(&b'\r') => self.push(byte),
            // Text of a kind. What is no ASCII may not stand there, but some servers take it.
            b' '..=b'~' | 0x80.. if self.line.last() != Some(&b'\r') => self.push(byte),
            _ => Step::NotHttp,
        }
    }

    fn take_of_headers(&mut self, byte: u8) -> Step {
        match byte {
            b'\n' => {
                if self.line.last() == Some(&b'\r') {
                    self.line.pop();
                }
                if self.line.is_empty() {
                    return Step::Head;
                }
                let step = self.read_header();
                self.line.clear();
                step
            }
            0 => Step::Invalid(InvalidName::Character('\0')),
            // RFC 9112, section 2.2: a bare CR is not to be taken for the end of a line, and some servers do.
            _ if self.line.last() == Some(&b'\r') => Step::Invalid(InvalidName::Character('\r')),
            _ => self.push(byte),
        }
    }

    /// Reads a header line; none but Host is kept.
    fn read_header(&mut self) -> Step {
        let line = &self.line;
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // Obsolete line folding (RFC 9112, section 5.2) goes on with the line before, which may be Host.
            return Step::Invalid(InvalidName::Character('\n'));
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Step::More;
        };
        let (name, value) = line.split_at_checked(colon).unwrap_or_default();
        // No white space may stand before the colon (RFC 9112, section 5.1), and some servers take it.
        if !name.trim_ascii().eq_ignore_ascii_case(b"host") {
            return Step::More;
        }
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if self.host.replace(value.to_vec()).is_some() {
            // As Envoy would have it: `a.com,b.com`.
            return Step::Invalid(InvalidName::Character(','));
        }
        Step::More
    }

    fn push(&mut self, byte: u8) -> Step {
        self.line.push(byte);
        Step::More
    }

    fn named_by_target(&self) -> RequestFor<'_> {
        match RequestLine::parse(&self.line) {
            Some(RequestLine { is_connect, authority: Some(authority) }) => {
                RequestFor { authority: Authority::from_wire(authority), is_connect }
            }
            _ => RequestFor { authority: Err(InvalidName::Empty), is_connect: false },
        }
    }

    fn named_by_host(&self) -> RequestFor<'_> {
        let host = self.host.as_deref().unwrap_or_default();
        RequestFor { authority: Authority::from_wire(host), is_connect: false }
    }
}

/// What a byte led to.
enum Step {
    More,
    NotHttp,
    Http2,
    /// The request line names whom the request is for.
    RequestLine,
    /// The head is whole.
    Head,
    /// It is HTTP, but whom it is for cannot be relied on.
    Invalid(InvalidName),
}

/// What counts of a request line (RFC 9112, section 3).
struct RequestLine<'a> {
    is_connect: bool,
    /// The authority of a target in absolute or authority form.
    authority: Option<&'a [u8]>,
}

impl<'a> RequestLine<'a> {
    /// Reads `METHOD TARGET HTTP/D.D`, with or without CR at the end; `None` if it is no such line.
    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (method, rest) = split_at_byte(line, line.iter().position(|byte| *byte == b' ')?)?;
        let (target, version) = split_at_byte(rest, rest.iter().rposition(|byte| *byte == b' ')?)?;
        let (name, numbers) = version.split_at_checked(5)?;
        let is_http = name.eq_ignore_ascii_case(b"HTTP/")
            && matches!(numbers, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
        if !is_http {
            return None;
        }
        let is_connect = method == b"CONNECT";
        let target = target.trim_ascii();
        Some(RequestLine { is_connect, authority: if is_connect { Some(target) } else { authority_of_uri(target) } })
    }
}

/// The authority of `scheme://authority/...`; `None` in any other form.
fn authority_of_uri(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = split_at_byte(target, target.iter().position(|byte| *byte == b':')?)?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let rest = rest.strip_prefix(b"//").filter(|_| is_scheme)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.get(..end)
}

/// What stands before a byte, and what behind it.
fn split_at_byte(bytes: &[u8], position: usize) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(position)?;
    Some((before, rest.get(1..)?))
}

/// What a method is made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
