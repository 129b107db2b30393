//! Heads as clients send them, and as those do who want to be read in two ways.

use super::*;
use crate::name::{Host, HostName};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    NeedsMore,
    NotHttp,
    Http2,
    /// Host and port.
    Host(String, Option<u16>),
    Connect(String, Option<u16>),
    Invalid(InvalidName),
}

fn found(progress: Progress<'_>) -> Found {
    match progress {
        Progress::NeedsMore => Found::NeedsMore,
        Progress::NotHttp => Found::NotHttp,
        Progress::Http2 => Found::Http2,
        Progress::Request(RequestFor { authority: Err(invalid), .. }) => Found::Invalid(invalid),
        Progress::Request(RequestFor { authority: Ok(Authority { host, port }), is_connect }) => {
            let host = match host {
                Host::Name(name) => name.to_string(),
                Host::Ip(ip) => ip.to_string(),
            };
            if is_connect { Found::Connect(host, port) } else { Found::Host(host, port) }
        }
    }
}

/// Reads in one piece and byte by byte, which must come to the same.
#[track_caller]
fn read(bytes: impl AsRef<[u8]>) -> Found {
    let bytes = bytes.as_ref();
    let whole = found(HeadReader::default().read(bytes));
    let mut reader = HeadReader::default();
    let mut in_bytes = Found::NeedsMore;
    for byte in bytes.chunks(1) {
        in_bytes = found(reader.read(byte));
        if in_bytes != Found::NeedsMore {
            break;
        }
    }
    assert_eq!(in_bytes, whole);
    whole
}

fn host(name: &str) -> Found {
    Found::Host(name.to_owned(), None)
}

#[test]
fn finds_whom_a_request_is_for() {
    for (head, expected) in [
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("GET / HTTP/1.1\r\nhost:A.Test.\r\n\r\n", host("a.test")),
        ("GET / HTTP/1.1\r\nHOST: \t a.test \t\r\n\r\n", host("a.test")),
        (
            "GET / HTTP/1.0\r\nAccept: */*\r\nHost: a.test:8080\r\n\r\nbody",
            Found::Host("a.test".to_owned(), Some(8080)),
        ),
        ("POST /x?y=z HTTP/1.1\r\nX-Host: b.test\r\nHost: a.test\r\nno colon\r\n\r\n", host("a.test")),
        ("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", Found::Host("2001:db8::1".to_owned(), Some(80))),
        ("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("MADE-UP path HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("GET /\u{fc} HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("GET / HTTP/2.0\r\nHost: a.test\r\n\r\n", host("a.test")),
        // Empty lines before it are to be ignored.
        ("\r\n\r\nGET / HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        // A header before Host and after it, and Host in the value of another.
        ("GET / HTTP/1.1\r\nReferer: Host: b.test\r\nHost: a.test\r\nX: y\r\n\r\n", host("a.test")),
        // Some servers take white space before the colon.
        ("GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", host("a.test")),
        // PUT, PATCH and PRI begin like the HTTP/2 preface.
        ("PUT / HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("PRI / HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("PRI * HTTP/2.0\r\nHost: a.test\r\n\r\n", host("a.test")),
    ] {
        assert_eq!(read(head), expected, "{head:?}");
    }
}

#[test]
fn the_authority_of_the_target_counts_and_host_must_be_the_same() {
    for (head, expected) in [
        ("GET http://a.test/ HTTP/1.1\r\nHost: A.test\r\n\r\n", host("a.test")),
        ("GET HTTP://A.test:81/x HTTP/1.1\r\nHost: a.test\r\n\r\n", Found::Host("a.test".to_owned(), Some(81))),
        ("GET https://a.test?x HTTP/1.0\r\n\r\n", host("a.test")),
        ("GET ws+x.y://a.test#x HTTP/1.1\r\n\r\n", host("a.test")),
        ("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", Found::Invalid(InvalidName::Character(','))),
        ("GET http://a.test/ HTTP/1.1\r\nHost:\r\n\r\n", Found::Invalid(InvalidName::Empty)),
        ("GET http://u@a.test/ HTTP/1.1\r\n\r\n", Found::Invalid(InvalidName::UserInformation)),
        ("GET http:///x HTTP/1.1\r\n\r\n", Found::Invalid(InvalidName::Empty)),
        ("GET http://a.test\\@b.test/ HTTP/1.1\r\n\r\n", Found::Invalid(InvalidName::Character('\\'))),
        ("CONNECT a.test:8443 HTTP/1.1\r\nHost: a.test:8443\r\n\r\n", Found::Connect("a.test".to_owned(), Some(8443))),
        ("CONNECT a.test HTTP/1.1\r\n\r\n", Found::Connect("a.test".to_owned(), None)),
        ("CONNECT [::1]:22 HTTP/1.0\r\n\r\n", Found::Connect("::1".to_owned(), Some(22))),
        ("CONNECT a.test:1 HTTP/1.1\r\nHost: b.test\r\n\r\n", Found::Invalid(InvalidName::Character(','))),
        ("CONNECT http://a.test HTTP/1.1\r\n\r\n", Found::Invalid(InvalidName::Port)),
        ("CONNECT  HTTP/1.1\r\n\r\n", Found::Invalid(InvalidName::Empty)),
        // No scheme, so no authority: Host counts.
        ("GET /http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("GET 1http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("GET mailto:x@b.test HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
        ("connect b.test:1 HTTP/1.1\r\nHost: a.test\r\n\r\n", host("a.test")),
    ] {
        assert_eq!(read(head), expected, "{head:?}");
    }
}

/// Each of these was seen to be taken for a request by some server: gunicorn, Python's http.server, Go's net/http, Node.
#[test]
fn what_is_nearly_a_request_line_is_no_name() {
    for line in [
        "GET\t/ HTTP/1.1\r\n",
        "GET /\x01 HTTP/1.1\r\n",
        "GET /\t HTTP/1.1\r\n",
        "GET /\0 HTTP/1.1\r\n",
        "GET  / HTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        " GET / HTTP/1.1\r\n",
        "GET / HTTP/1.10\r\n",
        "GET / HTTP/1\r\n",
        "GET / HTTP/1.1x\r\n",
        "GET / http/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET / HTTP/1.1\r\r\n",
        "GET / HTTP/1.1\n",
        "GET http://a.test/\r\n",
        "GET http://a.test/\n",
    ] {
        assert_eq!(read(line), Found::Invalid(InvalidName::Character(' ')), "{line:?}");
    }
    let long = format!("{} / HTTP/1.1\r\nHost: a.test\r\n\r\n", "A".repeat(1_000));
    assert_eq!(read(long), host("a.test"));
}

#[test]
fn what_servers_read_in_two_ways_is_no_name() {
    for (headers, expected) in [
        ("", InvalidName::Empty),
        ("Accept: */*\r\n", InvalidName::Empty),
        ("Host:\r\n", InvalidName::Empty),
        ("Host: a.test\r\nHost: b.test\r\n", InvalidName::Character(',')),
        ("Host: a.test\r\nhost: a.test\r\n", InvalidName::Character(',')),
        ("Host: a.test\r\n b.test\r\n", InvalidName::Character('\n')),
        ("Host:\r\n a.test\r\n", InvalidName::Character('\n')),
        ("X: y\r\n\tHost: a.test\r\n", InvalidName::Character('\n')),
        ("X: y\rHost: b.test\r\nHost: a.test\r\n", InvalidName::Character('\r')),
        ("Host: a.test\r\r\n", InvalidName::Character('\r')),
        ("Host: a.test\0b.test\r\n", InvalidName::Character('\0')),
        ("X: y\nHost: a.test\r\n", InvalidName::Character('\n')),
        ("Host: a.test\n", InvalidName::Character('\n')),
        ("Host: a.test, b.test\r\n", InvalidName::Character(',')),
        ("Host: user@a.test\r\n", InvalidName::UserInformation),
        ("Host: a.test:0\r\n", InvalidName::Port),
        ("Host: 127.1\r\n", InvalidName::Ipv4Form),
        ("Host: b\u{fc}cher.test\r\n", InvalidName::NotAscii),
    ] {
        let head = format!("GET / HTTP/1.1\r\n{headers}\r\n");
        assert_eq!(read(&head), Found::Invalid(expected), "{head:?}");
    }
}

#[test]
fn tells_other_protocols_by_their_first_bytes() {
    for bytes in [
        &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],      // PostgreSQL, SSLRequest
        b"\x3a\0\0\0\x01\0\0\0",                 // MongoDB
        b"*1\r\n$4\r\nPING\r\n",                 // Redis
        b"PING\r\n",                             // Redis, inline
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",   // SSH
        b"AMQP\0\0\x09\x01",                     // AMQP
        b"get some key\r\n",                     // memcached
        b"8=FIX.4.4\x019=65\x01",                // FIX
        b"\x13BitTorrent protocol",              // BitTorrent
        b"INVITE sip:a@b.test SIP/2.0\r\n",      // SIP
        b"DESCRIBE rtsp://b.test/ RTSP/1.0\r\n", // RTSP
        b"EHLO a.test\r\n",                      // SMTP
        b"GET /\r\n",                            // HTTP/0.9, which has no Host
        b"NICK someone\n",                       // IRC
        b"\x30\x0c\x02\x01\x01\x60",             // LDAP
        b"\r\0\0\0\x01",                         // a length of 13
    ] {
        assert_eq!(read(bytes), Found::NotHttp, "{}", bytes.escape_ascii());
    }
}

#[test]
fn waits_while_it_may_be_a_request() {
    let head = b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n";
    for cut in 0..head.len() {
        let (before, after) = head.split_at(cut);
        let mut reader = HeadReader::default();
        assert_eq!(reader.read(before), Progress::NeedsMore, "{cut}");
        assert_eq!(reader.is_surely_http(), cut > 16, "{cut}");
        assert_eq!(found(reader.read(after)), host("a.test"), "{cut}");
    }
}

#[test]
fn knows_http_2_by_its_whole_preface() {
    for cut in 0..PREFACE.len() {
        assert_eq!(read(&PREFACE[..cut]), Found::NeedsMore, "{cut}");
    }
    assert_eq!(read(PREFACE), Found::Http2);
    assert_eq!(read([PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat()), Found::Http2);
    // A request without Host, as far as anyone can tell.
    assert_eq!(read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"), Found::Invalid(InvalidName::Empty));
}

#[test]
fn gives_up_on_a_head_that_does_not_end() {
    let long = |start: &str| format!("{start}{}", "x".repeat(MAX_HEAD));
    assert_eq!(read(long("GET /")), Found::Invalid(InvalidName::TooLong));
    assert_eq!(read(long("GET / HTTP/1.1\r\nX: ")), Found::Invalid(InvalidName::TooLong));
    assert_eq!(read(long("GET")), Found::Invalid(InvalidName::TooLong));
    assert_eq!(read("\r\n".repeat(MAX_HEAD)), Found::Invalid(InvalidName::TooLong));
    let padded = |padding: usize| format!("GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n", "x".repeat(padding));
    let room = MAX_HEAD - padded(0).len();
    assert_eq!(read(padded(room)), host("a.test"));
    assert_eq!(read(padded(room + 1)), Found::Invalid(InvalidName::TooLong));
}

proptest! {
    #[test]
    fn reads_alike_however_the_bytes_come(
        bytes in prop::collection::vec(prop::sample::select(b"GET / HTTP/1.1\r\nHost: a.b,:@\0\t\xff".to_vec()), 0..200),
    ) {
        read(bytes);
    }

    #[test]
    fn a_name_that_is_found_is_in_the_bytes(tail in prop::collection::vec(any::<u8>(), 0..100)) {
        let bytes = [b"GET / HTTP/1.1\r\nHost: ", tail.as_slice(), b"\r\n\r\n"].concat();
        if let Found::Host(name, _) = read(&bytes)
            && HostName::from_wire(name.as_bytes()).is_ok()
        {
            prop_assert!(bytes.to_ascii_lowercase().windows(name.len()).any(|window| window == name.as_bytes()));
        }
    }
}
