//! What a user asks about: `http://host/path`, `tls://sni:port@ip`, `tcp://ip:port` as a [`Call`].

use std::fmt;
use std::net::IpAddr;

use egress_filter::name::{Authority, Host};
use egress_filter::policy::{Target, Unnamed, WireProtocol};

use crate::call::{Call, RouteName};
use crate::configuration::Plugin;

/// What one URL asks for. Where Envoy would send it is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The URL as it was given.
    pub url: String,
    /// What it means, with [`RouteName::passthrough`] for a route.
    pub call: Call,
}

/// Why a text asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTarget {
    text: String,
    problem: &'static str,
}

impl fmt::Display for InvalidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.text, self.problem)
    }
}

impl std::error::Error for InvalidTarget {}

const FORMS: &str = "not known; use http://host[:port][/path], https://host, grpc://host, tls://sni:port or tcp://ip:port, \
                     each with @ip behind the authority if the address matters";

impl Asked {
    /// Reads a URL.
    ///
    /// The authority is read as the filter reads one from a client, so a spelling that is no name (`0x7f.1`) asks for just
    /// that. `@IP` or `@IP:PORT` behind it is where the client connects to. A user name, which would stand before an `@`,
    /// is no part of what goes over the wire as authority.
    ///
    /// # Errors
    ///
    /// [`InvalidTarget`] for an unknown scheme, a port that is none, and `tcp://` without an address.
    pub fn parse(url: &str) -> Result<Self, InvalidTarget> {
        let fail = |problem| InvalidTarget { text: url.to_owned(), problem };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| fail(FORMS))?;
        let (protocol, default_port) = match scheme {
            "http" => (WireProtocol::Http, Some(80)),
            "grpc" => (WireProtocol::Grpc, Some(80)),
            "connect" => (WireProtocol::Http, None),
            "https" => (WireProtocol::Tls, Some(443)),
            "tls" => (WireProtocol::Tls, None),
            "tcp" => (WireProtocol::Tcp, None),
            _ => return Err(fail(FORMS)),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (authority, to) = match authority.rsplit_once('@') {
            None => (authority, None),
            Some((authority, to)) => match address_and_port(to) {
                Some(to) => (authority, Some(to)),
                None => return Err(fail("behind the @ stands the address to connect to: an IP address, or IP:port")),
            },
        };
        let (host, named_port) = split_port(authority).ok_or_else(|| fail("the port must be 1 to 65535"))?;
        let read = Authority::from_wire(host.as_bytes()).map(|authority| authority.host);
        let literal = if let Ok(Host::Ip(ip)) = &read { Some(*ip) } else { None };
        let target = match protocol {
            WireProtocol::Tcp if literal.is_none() && to.is_none() => {
                return Err(fail("tcp:// goes by address: give it an IP address"));
            }
            WireProtocol::Tcp => Target::Unnamed(Unnamed::Opaque),
            // Clients send no SNI for an address (RFC 6066, section 3).
            WireProtocol::Tls if literal.is_some() || host.is_empty() => Target::Unnamed(Unnamed::NoSni),
            _ => Target::from(read).into_owned(),
        };
        let port = named_port.or(default_port);
        let is_connect = scheme == "connect";
        let connected_port = to.and_then(|(_, port)| port);
        let call = Call {
            plugin: if matches!(protocol, WireProtocol::Http | WireProtocol::Grpc) {
                Plugin::Http
            } else {
                Plugin::Tcp
            },
            protocol,
            target,
            address: to.map(|(ip, _)| ip).or(literal).map(|ip| ip.to_canonical()),
            port: if is_connect { connected_port } else { connected_port.or(port) },
            connect_port: port.filter(|_| is_connect),
            route: RouteName::passthrough(),
            is_routed_by_name: matches!(protocol, WireProtocol::Http | WireProtocol::Grpc),
        };
        if call.port.is_none() && call.connect_port.is_none() {
            return Err(fail("the port is missing; add one, such as :443"));
        }
        Ok(Asked { url: url.to_owned(), call })
    }
}

/// A host without its port, if it has one; `None` if that is no port.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let behind_literal = authority.rfind(']').map_or(0, |end| end + 1);
    let colon = authority.get(behind_literal..).and_then(|rest| rest.rfind(':')).map(|at| at + behind_literal);
    let Some(colon) = colon else {
        return Some((authority, None));
    };
    let (host, port) = (authority.get(..colon)?, authority.get(colon + 1..)?);
    match port {
        "" => Some((host, None)),
        digits => digits.parse::<u16>().ok().filter(|port| *port > 0).map(|port| (host, Some(port))),
    }
}

fn address_and_port(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip.to_canonical(), None));
    }
    let (host, port) = split_port(text)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().ok().map(|ip| (ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match Asked::parse(url) {
            Err(invalid) => invalid.problem.to_owned(),
            Ok(Asked { call, .. }) => {
                let target = match &call.target {
                    Target::Name(name) => name.to_string(),
                    Target::Ip(ip) => format!("ip {ip}"),
                    Target::Unnamed(unnamed) => format!("{unnamed:?}"),
                };
                let address = call.address.map_or_else(|| "?".to_owned(), |ip| ip.to_string());
                let port = call.port.map_or_else(|| "?".to_owned(), |port| port.to_string());
                let connect = call.connect_port.map(|port| format!(" connect {port}")).unwrap_or_default();
                format!("{} {} {target} at {address} {port}{connect}", call.plugin.root_id(), call.protocol.as_str())
            }
        }
    }

    #[test]
    fn reads_what_a_url_asks_for() {
        for (url, expected) in [
            ("http://A.example./path?q#f", "egress-http http a.example at ? 80"),
            ("http://a.example:8080", "egress-http http a.example at ? 8080"),
            ("http://a.example@192.0.2.1/x", "egress-http http a.example at 192.0.2.1 80"),
            ("http://a.example:8080@192.0.2.1:15001", "egress-http http a.example at 192.0.2.1 15001"),
            ("http://192.0.2.1:81/", "egress-http http ip 192.0.2.1 at 192.0.2.1 81"),
            ("http://[::ffff:192.0.2.1]/", "egress-http http ip 192.0.2.1 at 192.0.2.1 80"),
            ("http://[2001:db8::1]:81/", "egress-http http ip 2001:db8::1 at 2001:db8::1 81"),
            ("http://0x7f.1/", "egress-http http InvalidName at ? 80"),
            ("http:///", "egress-http http Nameless at ? 80"),
            ("grpc://a.example:50051", "egress-http grpc a.example at ? 50051"),
            ("https://a.example/", "egress-tcp tls a.example at ? 443"),
            ("tls://a.example:8443@[2001:db8::1]", "egress-tcp tls a.example at 2001:db8::1 8443"),
            ("tls://192.0.2.1:443", "egress-tcp tls NoSni at 192.0.2.1 443"),
            ("tls://:443@192.0.2.1", "egress-tcp tls NoSni at 192.0.2.1 443"),
            ("tcp://192.0.2.1:3306", "egress-tcp tcp Opaque at 192.0.2.1 3306"),
            ("tcp://db.example:3306@192.0.2.1", "egress-tcp tcp Opaque at 192.0.2.1 3306"),
            ("connect://a.example:443@192.0.2.1:3128", "egress-http http a.example at 192.0.2.1 3128 connect 443"),
            ("tcp://db.example:3306", "tcp:// goes by address: give it an IP address"),
            ("tls://a.example", "the port is missing; add one, such as :443"),
            ("http://a.example:0", "the port must be 1 to 65535"),
            ("http://a.example:99999", "the port must be 1 to 65535"),
            ("http://user@a.example/", "behind the @ stands the address to connect to: an IP address, or IP:port"),
            ("ftp://a.example", FORMS),
            ("a.example", FORMS),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }
}
