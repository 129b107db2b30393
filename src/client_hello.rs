//! The first bytes of a TLS connection, as far as the server name.
//!
//! A [`ClientHelloReader`] takes the bytes as they come, over any number of reads and TLS records, and says whether they
//! are TLS at all and what name the client asks for. It keeps the handshake message and parses it once, when it is whole:
//! a client that dribbles makes it do no more work than one that does not. What cannot be read is an error that names the
//! field; it is never "no name".
//!
//! It does not check what a TLS server would refuse for other reasons (versions, cipher suites, key shares), and it sees
//! only the outer ClientHello where the inner one is encrypted (RFC 9849).

use std::fmt;

use crate::name::{Host, HostName, InvalidName};

/// The most bytes that are read, record headers included. Real ClientHellos have 200 bytes to 4 KiB; a post-quantum key
/// share adds 1 to 2 KiB, a session ticket may add several. The limit bounds what one connection can make a sidecar hold.
pub const MAX_BYTES: usize = 64 * 1024;

/// The longest fragment in a plaintext record (RFC 8446, section 5.1).
const MAX_FRAGMENT: usize = 1 << 14;

/// Bytes of a record's header: type, version, length (RFC 8446, section 5.1).
const RECORD_HEADER: usize = 5;

/// Bytes of a handshake message's header: type, length (RFC 8446, section 4).
const MESSAGE_HEADER: usize = 4;

/// The content type of a record with handshake messages (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// The first byte of a record's version. The second is to be ignored (RFC 8446, section 5.1).
const VERSION_MAJOR: u8 = 3;

/// The type of the handshake message (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;

/// The extension with the server's name (RFC 6066, section 3).
const SERVER_NAME: u16 = 0;

/// The only type of name that is defined (RFC 6066, section 3).
const HOST_NAME: u8 = 0;

/// Reads a ClientHello piece by piece.
#[derive(Debug, Default)]
pub struct ClientHelloReader {
    /// The header of the record that is being read, as far as it is there.
    header: Vec<u8>,
    /// How many bytes of that record's fragment are still to come.
    fragment: usize,
    /// The handshake message, without record headers.
    message: Vec<u8>,
    /// All bytes that were read.
    read: usize,
    /// The first byte of the first record's version, if it is not TLS's.
    odd_version: Option<u8>,
}

/// What is known after some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The bytes so far are the start of a ClientHello.
    NeedsMore,
    /// The bytes are no TLS record with a handshake message: another protocol, a TLS alert, or an SSLv2 hello, which has
    /// no place for a name.
    NotTls,
    /// TLS, but no ClientHello that can be read.
    Invalid(InvalidClientHello),
    /// The whole ClientHello is there.
    Complete(Sni<'a>),
}

/// The server name that a ClientHello asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sni<'a> {
    /// A DNS name.
    Name(HostName<'a>),
    /// No extension `server_name`.
    None,
    /// An IP address, which RFC 6066, section 3, does not permit.
    IpLiteral,
    /// Neither a DNS name nor an IP address.
    Invalid(InvalidName),
}

impl<'a> Sni<'a> {
    /// Reads the host name of the extension, which is there.
    #[must_use]
    pub fn from_wire(host_name: &'a [u8]) -> Self {
        match Host::from_wire(host_name) {
            Ok(Host::Name(name)) => Sni::Name(name),
            Ok(Host::Ip(_)) => Sni::IpLiteral,
            Err(_) if is_ipv6(host_name) => Sni::IpLiteral,
            Err(invalid) => Sni::Invalid(invalid),
        }
    }
}

/// Why a ClientHello cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidClientHello {
    /// More than [`MAX_BYTES`].
    TooLong,
    /// A record in its midst is of another type than handshake.
    RecordType(u8),
    /// A record's version does not start with 3.
    RecordVersion(u8),
    /// A record is empty or longer than 16 KiB.
    RecordLength,
    /// The handshake message is no ClientHello.
    MessageType(u8),
    /// The message ends within a field.
    Truncated(&'static str),
    /// A field has a length that it may not have.
    Length(&'static str),
    /// Bytes follow where a field or the message should end.
    Trailing(&'static str),
    /// An extension stands there twice.
    DuplicateExtension(u16),
    /// More than one host name.
    SeveralHostNames,
}

impl fmt::Display for InvalidClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidClientHello::TooLong => write!(f, "longer than {MAX_BYTES} bytes"),
            InvalidClientHello::RecordType(found) => write!(f, "a record of type {found} before the end"),
            InvalidClientHello::RecordVersion(found) => write!(f, "a record of version {found}"),
            InvalidClientHello::RecordLength => f.write_str("a record that is empty or longer than 16 KiB"),
            InvalidClientHello::MessageType(found) => write!(f, "a handshake message of type {found}"),
            InvalidClientHello::Truncated(field) => write!(f, "it ends within {field}"),
            InvalidClientHello::Length(field) => write!(f, "the length of {field}"),
            InvalidClientHello::Trailing(field) => write!(f, "bytes after the end of {field}"),
            InvalidClientHello::DuplicateExtension(found) => write!(f, "extension {found} twice"),
            InvalidClientHello::SeveralHostNames => f.write_str("several host names"),
        }
    }
}

impl std::error::Error for InvalidClientHello {}

impl ClientHelloReader {
    /// Takes the bytes that follow those of the last call. After anything but [`Progress::NeedsMore`] it is done.
    pub fn read(&mut self, mut bytes: &[u8]) -> Progress<'_> {
        loop {
            if self.is_whole() {
                return match parse(self.message.get(MESSAGE_HEADER..self.message_end()).unwrap_or_default()) {
                    Ok(sni) => Progress::Complete(sni),
                    Err(invalid) => Progress::Invalid(invalid),
                };
            }
            if bytes.is_empty() {
                return Progress::NeedsMore;
            }
            if self.read >= MAX_BYTES {
                return Progress::Invalid(InvalidClientHello::TooLong);
            }
            let step = if self.fragment == 0 { self.read_header(&mut bytes) } else { self.read_fragment(&mut bytes) };
            if let Err(progress) = step {
                return progress;
            }
        }
    }

    /// Takes one byte of a record's header.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<(), Progress<'static>> {
        let byte = self.take(bytes, 1).first().copied().unwrap_or_default();
        let is_first_record = self.message.is_empty();
        match (self.header.len(), byte) {
            (0, HANDSHAKE) | (1, VERSION_MAJOR) => {}
            (0, _) if is_first_record => return Err(Progress::NotTls),
            // A server may ignore it, so what follows tells whether this is TLS.
            (1, _) if is_first_record => self.odd_version = Some(byte),
            (0, found) => return Err(Progress::Invalid(InvalidClientHello::RecordType(found))),
            (1, found) => return Err(Progress::Invalid(InvalidClientHello::RecordVersion(found))),
            _ => {}
        }
        self.header.push(byte);
        if self.header.len() == RECORD_HEADER {
            let length = match self.header.as_slice() {
                [.., high, low] => usize::from(u16::from_be_bytes([*high, *low])),
                _ => 0,
            };
            // An empty handshake fragment is forbidden (RFC 8446, section 5.1), and would let a client make no progress.
            if length == 0 || length > MAX_FRAGMENT {
                return Err(match self.odd_version {
                    Some(_) => Progress::NotTls,
                    None => Progress::Invalid(InvalidClientHello::RecordLength),
                });
            }
            self.fragment = length;
            self.header.clear();
        }
        Ok(())
    }

    /// Takes what is there of a record's fragment.
    fn read_fragment(&mut self, bytes: &mut &[u8]) -> Result<(), Progress<'static>> {
        let taken = self.take(bytes, self.fragment);
        self.fragment = self.fragment.saturating_sub(taken.len());
        self.message.extend_from_slice(taken);
        match (self.message.first(), self.odd_version) {
            (Some(&CLIENT_HELLO), Some(found)) => {
                return Err(Progress::Invalid(InvalidClientHello::RecordVersion(found)));
            }
            (Some(_), Some(_)) => return Err(Progress::NotTls),
            (Some(&CLIENT_HELLO) | None, _) => {}
            (Some(&found), None) => return Err(Progress::Invalid(InvalidClientHello::MessageType(found))),
        }
        if self.message.len() >= MESSAGE_HEADER && self.message_end() > MAX_BYTES {
            return Err(Progress::Invalid(InvalidClientHello::TooLong));
        }
        Ok(())
    }

    /// At most `count` bytes off the front, and no more than may be read in all.
    fn take<'b>(&mut self, bytes: &mut &'b [u8], count: usize) -> &'b [u8] {
        let count = count.min(bytes.len()).min(MAX_BYTES.saturating_sub(self.read));
        let (taken, rest) = bytes.split_at_checked(count).unwrap_or_default();
        *bytes = rest;
        self.read += taken.len();
        taken
    }

    fn is_whole(&self) -> bool {
        self.message.len() >= MESSAGE_HEADER && self.message.len() >= self.message_end()
    }

    /// Where the message ends, by its own header.
    fn message_end(&self) -> usize {
        match self.message.as_slice() {
            [_, a, b, c, ..] => MESSAGE_HEADER + (usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c)),
            _ => usize::MAX,
        }
    }
}

/// Parses the body of a ClientHello (RFC 8446, section 4.1.2; before TLS 1.3 RFC 5246, section 7.4.1.2).
fn parse(body: &[u8]) -> Result<Sni<'_>, InvalidClientHello> {
    let mut hello = Cursor(body);
    hello.bytes(2, "legacy_version")?;
    hello.bytes(32, "random")?;
    if hello.vector_8("legacy_session_id")?.0.len() > 32 {
        return Err(InvalidClientHello::Length("legacy_session_id"));
    }
    let cipher_suites = hello.vector_16("cipher_suites")?.0;
    if cipher_suites.is_empty() || cipher_suites.len() % 2 != 0 {
        return Err(InvalidClientHello::Length("cipher_suites"));
    }
    if hello.vector_8("legacy_compression_methods")?.0.is_empty() {
        return Err(InvalidClientHello::Length("legacy_compression_methods"));
    }
    // Before TLS 1.3 there may be no extensions at all.
    if hello.0.is_empty() {
        return Ok(Sni::None);
    }
    let mut extensions = hello.vector_16("extensions")?;
    hello.end("ClientHello")?;
    let mut sni = Sni::None;
    let mut seen = Seen::default();
    while !extensions.0.is_empty() {
        let kind = extensions.number_16("extension_type")?;
        let data = extensions.vector_16("extension_data")?;
        // RFC 8446, section 4.2: no extension twice. GREASE (RFC 8701) does not repeat a value either.
        if !seen.insert(kind) {
            return Err(InvalidClientHello::DuplicateExtension(kind));
        }
        if kind == SERVER_NAME {
            sni = server_name(data)?;
        }
    }
    Ok(sni)
}

/// Parses the extension `server_name` (RFC 6066, section 3).
fn server_name(mut extension: Cursor<'_>) -> Result<Sni<'_>, InvalidClientHello> {
    let mut names = extension.vector_16("server_name_list")?;
    extension.end("server_name_list")?;
    if names.0.is_empty() {
        return Err(InvalidClientHello::Length("server_name_list"));
    }
    let mut host_name = None;
    while !names.0.is_empty() {
        let kind = names.number_8("name_type")?;
        // A name of a type to come starts with its length, too.
        let name = names.vector_16("server_name")?;
        if kind == HOST_NAME && host_name.replace(name.0).is_some() {
            return Err(InvalidClientHello::SeveralHostNames);
        }
    }
    Ok(match host_name {
        None => Sni::None,
        Some([]) => return Err(InvalidClientHello::Length("host_name")),
        Some(name) => Sni::from_wire(name),
    })
}

fn is_ipv6(name: &[u8]) -> bool {
    std::str::from_utf8(name).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// Takes fields off the front of some bytes; each call names the field, for the error.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], InvalidClientHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(InvalidClientHello::Truncated(field))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number_8(&mut self, field: &'static str) -> Result<u8, InvalidClientHello> {
        let (number, rest) = self.0.split_first().ok_or(InvalidClientHello::Truncated(field))?;
        self.0 = rest;
        Ok(*number)
    }

    fn number_16(&mut self, field: &'static str) -> Result<u16, InvalidClientHello> {
        let (number, rest) = self.0.split_first_chunk().ok_or(InvalidClientHello::Truncated(field))?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*number))
    }

    fn vector_8(&mut self, field: &'static str) -> Result<Cursor<'a>, InvalidClientHello> {
        let length = self.number_8(field)?;
        self.bytes(usize::from(length), field).map(Cursor)
    }

    fn vector_16(&mut self, field: &'static str) -> Result<Cursor<'a>, InvalidClientHello> {
        let length = self.number_16(field)?;
        self.bytes(usize::from(length), field).map(Cursor)
    }

    fn end(&self, field: &'static str) -> Result<(), InvalidClientHello> {
        if self.0.is_empty() { Ok(()) } else { Err(InvalidClientHello::Trailing(field)) }
    }
}

/// The extension types that were seen. Real clients have some 20; 64 KiB have room for 16,000.
#[derive(Default)]
struct Seen(Vec<u64>);

impl Seen {
    /// Whether `kind` is new.
    fn insert(&mut self, kind: u16) -> bool {
        let (word, bit) = (usize::from(kind / 64), 1 << (kind % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        match self.0.get_mut(word) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
