//! What the first bytes of a connection ask for: TLS with a server name, HTTP/1 with a host, HTTP/2, or neither.
//!
//! An [`Inspector`] takes what the client sends, as it comes, until that says whom the client wants or that it cannot
//! say. It holds no more than [`client_hello::MAX_BYTES`] or [`http_head::MAX_HEAD`] bytes, and looks at each once.

use crate::client_hello::{self, ClientHelloReader, Sni};
use crate::http_head::{self, HeadReader};
use crate::policy::{Destination, Target, Unnamed, WireProtocol};

/// Reads the first bytes of a client.
#[derive(Debug, Default)]
pub struct Inspector {
    reader: Reader,
    is_done: bool,
}

#[derive(Debug, Default)]
enum Reader {
    /// Nothing was read.
    #[default]
    Empty,
    Tls(ClientHelloReader),
    Http(HeadReader),
}

/// What a client asks for by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked<'a> {
    /// Protocol and name.
    pub destination: Destination<'a>,
    /// The port of a CONNECT request; see [`Attributes::connect_port`](crate::policy::Attributes::connect_port).
    pub connect_port: Option<u16>,
}

/// The first byte of a TLS record with a handshake message (RFC 8446, section 5.1). No HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 22;

impl Inspector {
    /// Takes the bytes that follow those of the last call; `None` while more must come. After an answer it is done.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Asked<'static>> {
        let asked = self.read_on(bytes);
        self.is_done = asked.is_some();
        asked
    }

    /// Whether there was an answer.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    fn read_on(&mut self, bytes: &[u8]) -> Option<Asked<'static>> {
        if matches!(self.reader, Reader::Empty) {
            self.reader = match bytes.first()? {
                &TLS_HANDSHAKE => Reader::Tls(ClientHelloReader::default()),
                _ => Reader::Http(HeadReader::default()),
            };
        }
        match &mut self.reader {
            Reader::Empty => None,
            Reader::Tls(reader) => Some(match reader.read(bytes) {
                client_hello::Progress::NeedsMore => return None,
                client_hello::Progress::NotTls => Asked::OPAQUE,
                client_hello::Progress::Invalid(_) => Asked::unnamed(WireProtocol::Tls, Unnamed::InvalidClientHello),
                client_hello::Progress::Complete(sni) => Asked::new(WireProtocol::Tls, Target::from(sni).into_owned()),
            }),
            Reader::Http(reader) => Some(match reader.read(bytes) {
                http_head::Progress::NeedsMore => return None,
                http_head::Progress::NotHttp => Asked::OPAQUE,
                // It names nobody yet, and may not before it has heard from the server.
                http_head::Progress::Http2 => Asked::unnamed(WireProtocol::Http, Unnamed::Opaque),
                http_head::Progress::Request(request) => {
                    let port = request.authority.as_ref().ok().and_then(|authority| authority.port);
                    let target = Target::from(request.authority.map(|authority| authority.host)).into_owned();
                    Asked {
                        connect_port: port.filter(|_| request.is_connect),
                        ..Asked::new(WireProtocol::Http, target)
                    }
                }
            }),
        }
    }

    /// What the bytes so far come to when the client ends.
    #[must_use]
    pub fn end(&self) -> Asked<'static> {
        match &self.reader {
            Reader::Http(reader) if !reader.is_surely_http() => Asked::OPAQUE,
            _ => self.give_up(),
        }
    }

    /// What they come to when no more can be read, though more may come.
    #[must_use]
    pub fn give_up(&self) -> Asked<'static> {
        match &self.reader {
            Reader::Empty => self.time_out(),
            Reader::Tls(_) => Asked::unnamed(WireProtocol::Tls, Unnamed::InvalidClientHello),
            Reader::Http(_) => Asked::unnamed(WireProtocol::Http, Unnamed::InvalidName),
        }
    }

    /// What they come to when the client has not said enough in time.
    #[must_use]
    pub fn time_out(&self) -> Asked<'static> {
        let protocol = match &self.reader {
            Reader::Tls(_) => WireProtocol::Tls,
            Reader::Http(reader) if reader.is_surely_http() => WireProtocol::Http,
            Reader::Empty | Reader::Http(_) => WireProtocol::Tcp,
        };
        Asked::unnamed(protocol, Unnamed::NoClientData)
    }
}

impl<'a> Asked<'a> {
    /// Bytes of a protocol that has no name in them, or none that is known here; and no byte at all.
    pub const OPAQUE: Self = Self::unnamed(WireProtocol::Tcp, Unnamed::Opaque);

    /// A server that spoke before its client said enough.
    pub const SERVER_FIRST: Self = Self::unnamed(WireProtocol::Tcp, Unnamed::ServerFirst);

    fn new(protocol: WireProtocol, target: Target<'a>) -> Self {
        Asked { destination: Destination { protocol, target }, connect_port: None }
    }

    const fn unnamed(protocol: WireProtocol, unnamed: Unnamed) -> Self {
        Asked { destination: Destination { protocol, target: Target::Unnamed(unnamed) }, connect_port: None }
    }

    /// A TLS client whose SNI is known already, as Envoy's `tls_inspector` read it.
    #[must_use]
    pub fn tls(server_name: &'a [u8]) -> Self {
        Asked::new(WireProtocol::Tls, Sni::from_wire(server_name).into())
    }
}

impl<'a> From<Sni<'a>> for Target<'a> {
    fn from(sni: Sni<'a>) -> Self {
        match sni {
            Sni::Name(name) => Target::Name(name),
            Sni::None => Target::Unnamed(Unnamed::NoSni),
            // RFC 6066, section 3, forbids addresses: they are no name, and do not stand for themselves either.
            Sni::IpLiteral => Target::Unnamed(Unnamed::Nameless),
            Sni::Invalid(_) => Target::Unnamed(Unnamed::InvalidName),
        }
    }
}

#[cfg(test)]
mod tests;
