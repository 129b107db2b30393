//! The first request head of a connection that Envoy does not parse as HTTP, as far as its authority.
//!
//! A [`HeadReader`] takes the bytes as they come and says whether they are HTTP/1 at all and whom the first request is
//! for, by RFC 9112, section 3.2: the authority of a request target in absolute or authority form, otherwise Host. It
//! looks at each byte once.
//!
//! The bytes go on as they are, to a server that may be more lenient than the RFC. So what some server might read as a
//! request for another host than the next one does is no name: two Hosts, a Host that differs from the target, a folded
//! line, a line that ends in a bare LF or has a bare CR, a NUL, a request line that is only nearly one.
//!
//! Later requests of the connection are not looked at. HTTP/2 is recognised by its preface; its headers are not read,
//! because a client may send none before it has heard from the server.

use crate::name::{Authority, InvalidName};

/// The most bytes of a head, request line and empty line included. Servers take 8 to 64 KiB; the limit bounds what one
/// connection can make a sidecar hold.
pub const MAX_HEAD: usize = 64 * 1024;

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads a request head piece by piece.
#[derive(Debug, Default)]
pub struct HeadReader {
    part: Part,
    /// The line that is being read, as far as it is there.
    line: Vec<u8>,
    is_connect: bool,
    /// The authority of the request target.
    authority: Option<Vec<u8>>,
    /// The value of Host.
    host: Option<Vec<u8>>,
    /// All bytes that were read, save those that may still be of an HTTP/2 preface.
    read: usize,
    preface: Preface,
}

/// Where in a head the reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// In the first word, or before it.
    #[default]
    Method,
    /// In the rest of the first line.
    RequestLine,
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
    /// The head of the first request is there.
    Request(RequestFor<'a>),
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFor<'a> {
    /// The authority, or why there is none that can be relied on; [`InvalidName::Empty`] if the request names nobody.
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
                Step::End => {
                    return Progress::Request(RequestFor { authority: self.named(), is_connect: self.is_connect });
                }
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
            return Step::Invalid(InvalidName::TooLong);
        }
        match (self.part, byte) {
            (Part::Method, _) => self.take_of_method(byte),
            (Part::RequestLine, b'\n') => self.end_request_line(),
            (Part::Headers, b'\n') => self.end_header(),
            (Part::RequestLine | Part::Headers, _) => {
                self.line.push(byte);
                Step::More
            }
        }
    }

    /// What is no text is told from HTTP here, by its first bytes.
    fn take_of_method(&mut self, byte: u8) -> Step {
        match byte {
            // A server should ignore empty lines before the request line (RFC 9112, section 2.2).
            b'\r' | b'\n' if self.line.is_empty() => return Step::More,
            b' ' | b'\t' => self.part = Part::RequestLine,
            byte if is_token(byte) => {}
            _ => return Step::NotHttp,
        }
        self.line.push(byte);
        Step::More
    }

    fn end_request_line(&mut self) -> Step {
        let line = match RequestLine::parse(&self.line) {
            Ok(line) => line,
            Err(NoRequestLine::OtherProtocol) => return Step::NotHttp,
            Err(NoRequestLine::Nearly) => return Step::Invalid(InvalidName::Character(' ')),
        };
        self.is_connect = line.is_connect;
        self.authority = line.authority.map(<[u8]>::to_vec);
        self.line.clear();
        self.part = Part::Headers;
        Step::More
    }

    /// Reads a header line; none but Host is kept.
    fn end_header(&mut self) -> Step {
        // RFC 9112, section 2.2: a bare LF may be taken for the end of a line, a bare CR must not be. Servers differ.
        let Some(line) = self.line.strip_suffix(b"\r") else {
            return Step::Invalid(InvalidName::Character('\n'));
        };
        if let Some(byte) = line.iter().find(|byte| matches!(byte, 0 | b'\r')) {
            return Step::Invalid(InvalidName::Character(char::from(*byte)));
        }
        if line.is_empty() {
            return Step::End;
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            // Obsolete line folding (RFC 9112, section 5.2) goes on with the line before, which may be Host.
            return Step::Invalid(InvalidName::Character('\n'));
        }
        let (name, value) =
            line.iter().position(|byte| *byte == b':').and_then(|at| split(line, at)).unwrap_or_default();
        // No white space may stand before the colon (RFC 9112, section 5.1), and some servers take it.
        if name.trim_ascii().eq_ignore_ascii_case(b"host") && self.host.replace(value.trim_ascii().to_vec()).is_some() {
            // As Envoy would have it: `a.com,b.com`.
            return Step::Invalid(InvalidName::Character(','));
        }
        self.line.clear();
        Step::More
    }

    fn named(&self) -> Result<Authority<'_>, InvalidName> {
        let host = self.host.as_deref().map(Authority::from_wire);
        let Some(target) = self.authority.as_deref() else {
            return host.unwrap_or(Err(InvalidName::Empty));
        };
        let target = Authority::from_wire(target)?;
        // They must be the same (RFC 9112, section 3.2); servers do not agree on which counts if they are not.
        let is_same = host.transpose()?.is_none_or(|host| host.host == target.host);
        if is_same { Ok(target) } else { Err(InvalidName::Character(',')) }
    }
}

/// What a byte led to.
enum Step {
    More,
    NotHttp,
    Http2,
    /// The head is whole.
    End,
    /// It is HTTP, but whom it is for cannot be relied on.
    Invalid(InvalidName),
}

/// What counts of a request line (RFC 9112, section 3).
struct RequestLine<'a> {
    is_connect: bool,
    /// The authority of a target in absolute or authority form.
    authority: Option<&'a [u8]>,
}

enum NoRequestLine {
    /// The first line of another protocol.
    OtherProtocol,
    /// Some server might take it for one.
    Nearly,
}

impl<'a> RequestLine<'a> {
    /// Reads `METHOD TARGET HTTP/D.D` and CR.
    fn parse(line: &'a [u8]) -> Result<Self, NoRequestLine> {
        Self::parse_strictly(line).ok_or_else(|| {
            let mentions_http = line.windows(5).any(|word| word.eq_ignore_ascii_case(b"HTTP/"));
            // HTTP/0.9 has no version: `GET http://a.test/`.
            let words = || line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let is_http_0_9 =
                words().count() == 2 && words().nth(1).is_some_and(|target| authority_of(target).is_some());
            if mentions_http || is_http_0_9 { NoRequestLine::Nearly } else { NoRequestLine::OtherProtocol }
        })
    }

    fn parse_strictly(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r")?;
        let is_text = line.iter().all(|byte| matches!(byte, b' '..=b'~' | 0x80..));
        let (method, rest) = split(line, line.iter().position(|byte| *byte == b' ')?)?;
        let (target, version) = split(rest, rest.iter().rposition(|byte| *byte == b' ')?)?;
        let (name, numbers) = version.split_at_checked(5)?;
        let is_http = name == b"HTTP/"
            && matches!(numbers, [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
        if !is_text || !is_http || method.is_empty() || target.contains(&b' ') {
            return None;
        }
        let is_connect = method == b"CONNECT";
        Some(RequestLine { is_connect, authority: if is_connect { Some(target) } else { authority_of(target) } })
    }
}

/// The authority of `scheme://authority/...`; `None` in any other form.
fn authority_of(target: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = split(target, target.iter().position(|byte| *byte == b':')?)?;
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let rest = rest.strip_prefix(b"//").filter(|_| is_scheme)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    rest.get(..end)
}

/// What stands before a byte, and what behind it.
fn split(bytes: &[u8], position: usize) -> Option<(&[u8], &[u8])> {
    let (before, rest) = bytes.split_at_checked(position)?;
    Some((before, rest.get(1..)?))
}

/// What a method is made of (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
