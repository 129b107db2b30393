//! Host names, IP literals and authorities: the only normaliser in the project.
//!
//! `Host`, `:authority`, SNI and configuration all pass through here, so a name can not be spelt in a way that one part
//! of the filter takes for another name than the next. What cannot be normalised is an error that says why; it is never
//! "no name". DNS is not asked: a [`HostName`] is well formed, not necessarily registered anywhere.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest host name, in bytes, without its trailing dot (RFC 1035, section 2.3.4: 255 octets on the wire).
pub const MAX_NAME: usize = 253;

/// The longest label, in bytes (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;

/// A DNS host name in normal form: lower-case A-labels, no trailing dot, 1 to [`MAX_NAME`] bytes.
///
/// It borrows what it was parsed from when that is in normal form already, which is what clients send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName<'a>(Cow<'a, str>);

impl<'a> HostName<'a> {
    /// Reads a name that came over the wire: case is folded and one trailing dot dropped.
    ///
    /// Letters, digits, `-` and `_` may stand anywhere in a label. Unicode is refused: a client that follows RFC 9110,
    /// section 4.2.3, or RFC 6066, section 3, sends A-labels.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], also for every spelling of an IPv4 address.
    pub fn from_wire(text: &'a [u8]) -> Result<Self, InvalidName> {
        Self::from_ascii(ascii(text)?)
    }

    fn from_ascii(text: &'a str) -> Result<Self, InvalidName> {
        match Host::from_ascii(text)? {
            Host::Name(name) => Ok(name),
            Host::Ip(_) => Err(InvalidName::IpLiteral),
        }
    }

    /// Reads a name from configuration: as [`from_wire`](Self::from_wire), but Unicode is mapped to A-labels (UTS 46,
    /// non-transitional), so `Bücher.example` is `xn--bcher-kva.example`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], also for every spelling of an IPv4 address.
    pub fn from_config(text: &'a str) -> Result<Self, InvalidName> {
        match Self::from_ascii(text) {
            Err(InvalidName::NotAscii) => HostName::from_ascii(&to_ascii(text)?).map(HostName::into_owned),
            result => result,
        }
    }

    /// The normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> HostName<'static> {
        HostName(Cow::Owned(self.0.into_owned()))
    }

    /// Whether this name is `domain` or lies below it.
    #[must_use]
    pub fn is_within(&self, domain: &HostName<'_>) -> bool {
        match self.0.strip_suffix(domain.as_str()) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }
}

impl fmt::Display for HostName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an authority or an SNI names: a DNS name or an IP address. An IPv4-mapped IPv6 address is its IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A DNS name.
    Name(HostName<'a>),
    /// An IP address, written as RFC 3986, section 3.2.2, has it.
    Ip(IpAddr),
}

impl<'a> Host<'a> {
    /// Reads a name or a dotted-decimal IPv4 address. IPv6 needs brackets, which only an [`Authority`] has.
    ///
    /// # Errors
    ///
    /// [`InvalidName`]. An IPv4 address in octal, hexadecimal, decimal or short form, or with a trailing dot, is
    /// [`InvalidName::Ipv4Form`]: resolvers read such a text as an address, so it must not pass for a name.
    pub fn from_wire(text: &'a [u8]) -> Result<Self, InvalidName> {
        Self::from_ascii(ascii(text)?)
    }

    fn from_ascii(text: &'a str) -> Result<Self, InvalidName> {
        let trailing_dot = text.as_bytes().last() == Some(&b'.');
        let name = if trailing_dot { text.get(..text.len() - 1).unwrap_or_default() } else { text };
        let folded = fold(name, false)?;
        if ends_in_number(&folded) {
            return match folded.parse::<Ipv4Addr>() {
                Ok(ip) if !trailing_dot => Ok(Host::Ip(IpAddr::V4(ip))),
                _ => Err(InvalidName::Ipv4Form),
            };
        }
        Ok(Host::Name(HostName(folded)))
    }
}

/// The authority of a request: `Host` or `:authority` (RFC 9110, section 7.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, 1 to 65535, if the authority has one. `a.com:` has none (RFC 3986, section 3.2.3).
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`], for user information, IPv6 without brackets or with a zone, and a port that is no number, 0 or
    /// above 65535 too.
    pub fn from_wire(text: &'a [u8]) -> Result<Self, InvalidName> {
        if let [b'[', rest @ ..] = text {
            let Some((literal, after)) = split_once(rest, b']') else {
                return Err(InvalidName::Ipv6Form);
            };
            let host = Host::Ip(ipv6(literal)?);
            return match after {
                [] => Ok(Authority { host, port: None }),
                [b':', digits @ ..] => Ok(Authority { host, port: port(digits)? }),
                _ => Err(InvalidName::Ipv6Form),
            };
        }
        let Some((name, digits)) = split_once(text, b':') else {
            return Ok(Authority { host: Host::from_wire(text)?, port: None });
        };
        if digits.contains(&b'@') {
            return Err(InvalidName::UserInformation);
        }
        if digits.contains(&b':') {
            return Err(InvalidName::Ipv6Form);
        }
        Ok(Authority { host: Host::from_wire(name)?, port: port(digits)? })
    }
}

/// Why a text is no host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidName {
    /// Nothing, or only a dot.
    Empty,
    /// More than [`MAX_NAME`] bytes.
    TooLong,
    /// Two dots in a row, or one at the start.
    EmptyLabel,
    /// A label of more than [`MAX_LABEL`] bytes.
    LabelTooLong,
    /// An ASCII character other than letters, digits, `-`, `_` and `.`.
    Character(char),
    /// Unicode where only A-labels may stand.
    NotAscii,
    /// Unicode that UTS 46 does not map to a name.
    Idna,
    /// `user@host`.
    UserInformation,
    /// A number where a top-level domain should be, and not in dotted decimal.
    Ipv4Form,
    /// IPv6 without brackets, with a zone, or not well formed.
    Ipv6Form,
    /// An IP address where only a name may stand.
    IpLiteral,
    /// A port that is not 1 to 65535.
    Port,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidName::Empty => f.write_str("the name is empty"),
            InvalidName::TooLong => write!(f, "the name is longer than {MAX_NAME} characters"),
            InvalidName::EmptyLabel => f.write_str("a label is empty (two dots in a row, or one at the start)"),
            InvalidName::LabelTooLong => write!(f, "a label is longer than {MAX_LABEL} characters"),
            InvalidName::Character(c) => write!(f, "{c:?} may not stand in a name"),
            InvalidName::NotAscii => f.write_str("the name is not ASCII; on the wire only A-labels (xn--) are names"),
            InvalidName::Idna => f.write_str("the name is no valid internationalized name (UTS 46)"),
            InvalidName::UserInformation => f.write_str("user information may not stand before the host"),
            InvalidName::Ipv4Form => f.write_str(
                "the last label is a number: an IPv4 address, but not in dotted decimal (four numbers from 0 to 255)",
            ),
            InvalidName::Ipv6Form => f.write_str("an IPv6 address stands in brackets, without a zone"),
            InvalidName::IpLiteral => f.write_str("this is an IP address, not a name"),
            InvalidName::Port => f.write_str("the port is not a number from 1 to 65535"),
        }
    }
}

impl std::error::Error for InvalidName {}

/// Bytes as text; what is no text is no ASCII either.
fn ascii(text: &[u8]) -> Result<&str, InvalidName> {
    std::str::from_utf8(text).map_err(|_| InvalidName::NotAscii)
}

/// Checks `text` and folds its case; with `wildcards`, `*` is a character like any other. No trailing dot is dropped.
pub(crate) fn fold(text: &str, wildcards: bool) -> Result<Cow<'_, str>, InvalidName> {
    let upper = check(text.as_bytes(), wildcards)?;
    Ok(if upper { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) })
}

/// Checks characters and lengths, and says whether there is upper case.
fn check(text: &[u8], wildcards: bool) -> Result<bool, InvalidName> {
    // Nearly every name is short, of usual characters and without empty labels. That takes no branch a byte to see.
    let mut all = 0;
    let mut empty = 0;
    let mut previous = DOT;
    for &byte in text {
        let class = class(byte);
        all |= class;
        empty |= class & previous;
        previous = class;
    }
    empty |= previous;
    if (1..=MAX_LABEL).contains(&text.len()) && empty & DOT == 0 && all & !(UPPER | DOT) == 0 {
        return Ok(all & UPPER != 0);
    }
    check_slowly(text, wildcards)
}

/// As [`check`], for every text.
fn check_slowly(text: &[u8], wildcards: bool) -> Result<bool, InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > MAX_NAME {
        return Err(InvalidName::TooLong);
    }
    let mut label = 0;
    let mut upper = false;
    for &byte in text {
        match class(byte) {
            PLAIN => label += 1,
            UPPER => {
                upper = true;
                label += 1;
            }
            DOT if label == 0 => return Err(InvalidName::EmptyLabel),
            DOT if label > MAX_LABEL => return Err(InvalidName::LabelTooLong),
            DOT => label = 0,
            STAR if wildcards => label += 1,
            STAR => return Err(InvalidName::Character('*')),
            _ if byte == b'@' => return Err(InvalidName::UserInformation),
            _ if !byte.is_ascii() => return Err(InvalidName::NotAscii),
            _ => return Err(InvalidName::Character(char::from(byte))),
        }
    }
    match label {
        0 => Err(InvalidName::EmptyLabel),
        1..=MAX_LABEL => Ok(upper),
        _ => Err(InvalidName::LabelTooLong),
    }
}

// What a byte is in a name; each a bit, so that the classes of many bytes can be joined.
const PLAIN: u8 = 0;
const UPPER: u8 = 1;
const DOT: u8 = 2;
const STAR: u8 = 4;
const OTHER: u8 = 8;

#[inline(always)]
fn class(byte: u8) -> u8 {
    const CLASSES: [u8; 256] = {
        let mut classes = [OTHER; 256];
        let mut byte: u8 = 0;
        while byte < 128 {
            let class = match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => PLAIN,
                b'A'..=b'Z' => UPPER,
                b'.' => DOT,
                b'*' => STAR,
                _ => OTHER,
            };
            #[allow(clippy::indexing_slicing, reason = "evaluated at compile time")]
            {
                classes[byte as usize] = class;
            }
            byte += 1;
        }
        classes
    };
    #[allow(clippy::indexing_slicing, reason = "a byte is below 256")]
    CLASSES[usize::from(byte)]
}

/// Maps Unicode to A-labels (UTS 46, non-transitional); what ASCII may stand in a name is left to [`fold`].
pub(crate) fn to_ascii(text: &str) -> Result<Cow<'_, str>, InvalidName> {
    idna::domain_to_ascii_cow(text.as_bytes(), idna::AsciiDenyList::EMPTY).map_err(|_| InvalidName::Idna)
}

/// Whether the last label is a number, so that resolvers would read the whole as an IPv4 address: decimal, octal or
/// hexadecimal (the "ends in a number" rule of the WHATWG URL Standard, section 3.5).
pub(crate) fn ends_in_number(name: &str) -> bool {
    // Nearly every name ends here.
    if !matches!(name.as_bytes().last(), Some(b'0'..=b'9' | b'a'..=b'f' | b'x')) {
        return false;
    }
    let label = name.rsplit('.').next().unwrap_or(name).as_bytes();
    match label {
        [b'0', b'x', hex @ ..] => hex.iter().all(u8::is_ascii_hexdigit),
        digits => digits.iter().all(u8::is_ascii_digit),
    }
}

fn ipv6(literal: &[u8]) -> Result<IpAddr, InvalidName> {
    let text = std::str::from_utf8(literal).map_err(|_| InvalidName::Ipv6Form)?;
    let ip: Ipv6Addr = text.parse().map_err(|_| InvalidName::Ipv6Form)?;
    Ok(IpAddr::V6(ip).to_canonical())
}

fn port(digits: &[u8]) -> Result<Option<u16>, InvalidName> {
    if digits.is_empty() {
        return Ok(None);
    }
    let mut number: u32 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(InvalidName::Port);
        }
        number = number * 10 + u32::from(digit - b'0');
        if number > u32::from(u16::MAX) {
            return Err(InvalidName::Port);
        }
    }
    match u16::try_from(number) {
        Ok(number @ 1..) => Ok(Some(number)),
        _ => Err(InvalidName::Port),
    }
}

/// The scheme of a URL and what follows its `://`.
pub(crate) fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    Some((scheme, rest.strip_prefix("//")?))
}

fn split_once(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|byte| *byte == at)?;
    let (before, rest) = text.split_at_checked(position)?;
    Some((before, rest.get(1..)?))
}

#[cfg(test)]
mod tests;
