//! Whom first bytes ask for, and what they come to when they end early.

use super::*;

/// Protocol, target and port, in words.
fn told(asked: &Asked<'_>) -> String {
    let target = match &asked.destination.target {
        Target::Name(name) => name.to_string(),
        Target::Ip(ip) => ip.to_string(),
        Target::Unnamed(unnamed) => format!("{unnamed:?}"),
    };
    let port = asked.connect_port.map(|port| format!(":{port}")).unwrap_or_default();
    format!("{} {target}{port}", asked.destination.protocol.as_str())
}

fn read(bytes: &[u8]) -> Option<String> {
    let mut inspector = Inspector::default();
    let found = inspector.read(bytes).map(|asked| told(&asked));
    let mut by_byte = Inspector::default();
    assert_eq!(bytes.chunks(1).find_map(|byte| by_byte.read(byte).map(|asked| told(&asked))), found);
    found
}

/// A ClientHello with one cipher suite and, if there is one, a server name.
fn client_hello(name: Option<&[u8]>) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let extension = name.map(|name| {
        let entry = [&[0][..], &with_length(name)].concat();
        [&[0, 0][..], &with_length(&with_length(&entry))].concat()
    });
    let body =
        [&[3, 3][..], &[9; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &with_length(&extension.unwrap_or_default())].concat();
    let message = [&[1, 0][..], &with_length(&body)].concat();
    [&[22, 3, 1][..], &with_length(&message)].concat()
}

#[test]
fn tells_protocol_and_name() {
    for (bytes, expected) in [
        (client_hello(Some(b"A.test")), "tls a.test"),
        (client_hello(None), "tls NoSni"),
        (client_hello(Some(b"192.0.2.1")), "tls Nameless"),
        (client_hello(Some(b"::1")), "tls Nameless"),
        (client_hello(Some(b"a..test")), "tls InvalidName"),
        (client_hello(Some(b"")), "tls InvalidClientHello"),
        (b"\x16\x03\x01\0\0".to_vec(), "tls InvalidClientHello"),
        // Not a version of TLS: what follows tells.
        (b"\x16\x02\x01\0\x05\x01".to_vec(), "tls InvalidClientHello"),
        (b"\x16\x02\x01\0\x05\x02".to_vec(), "tcp Opaque"),
        (b"\x16\0\0\0\0".to_vec(), "tcp Opaque"),
        // A TLS alert, and an SSLv2 hello.
        (b"\x15\x03\x01\0\x02\x02\x28".to_vec(), "tcp Opaque"),
        (b"\x80\x2e\x01\0\x02".to_vec(), "tcp Opaque"),
        (b"GET / HTTP/1.1\r\nHost: A.test:80\r\n\r\n".to_vec(), "http a.test"),
        (b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n".to_vec(), "http 192.0.2.1"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "http Nameless"),
        (b"GET / HTTP/1.1\r\nHost: a..b\r\n\r\n".to_vec(), "http InvalidName"),
        (b"CONNECT a.test:8443 HTTP/1.1\r\n\r\n".to_vec(), "http a.test:8443"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "http Opaque"),
        (b"\0".to_vec(), "tcp Opaque"),
        (b"PING\r\n".to_vec(), "tcp Opaque"),
    ] {
        assert_eq!(read(&bytes).as_deref(), Some(expected), "{}", bytes.escape_ascii());
    }
}

#[test]
fn half_of_something_names_nobody() {
    let hello = client_hello(Some(b"a.test"));
    // What it comes to when the client ends, when no more can be read, and when time is up.
    for (bytes, ended, given_up, timed_out) in [
        (&b""[..], "tcp NoClientData", "tcp NoClientData", "tcp NoClientData"),
        (&hello[..1], "tls InvalidClientHello", "tls InvalidClientHello", "tls NoClientData"),
        (&hello[..hello.len() - 1], "tls InvalidClientHello", "tls InvalidClientHello", "tls NoClientData"),
        (b"GET / HTTP/1.1\r\nHost: a.test\r\n", "http InvalidName", "http InvalidName", "http NoClientData"),
        // Not even a request line.
        (b"GET", "tcp Opaque", "http InvalidName", "tcp NoClientData"),
        (b"GET / HTTP/1.1", "tcp Opaque", "http InvalidName", "tcp NoClientData"),
        (b"PRI * HTTP/2.0\r\n\r\n", "tcp Opaque", "http InvalidName", "tcp NoClientData"),
    ] {
        let mut inspector = Inspector::default();
        assert_eq!(inspector.read(bytes), None, "{}", bytes.escape_ascii());
        assert!(!inspector.is_done());
        let told = [inspector.end(), inspector.give_up(), inspector.time_out()].map(|asked| told(&asked));
        assert_eq!(told, [ended, given_up, timed_out], "{}", bytes.escape_ascii());
    }
}

#[test]
fn takes_the_server_name_that_envoy_read() {
    for (server_name, expected) in [
        (&b"A.test"[..], "tls a.test"),
        (b"192.0.2.1", "tls Nameless"),
        (b"a,b", "tls InvalidName"),
        (b"\xff", "tls InvalidName"),
    ] {
        assert_eq!(told(&Asked::tls(server_name)), expected);
    }
}
