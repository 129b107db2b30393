//! ClientHellos made by hand, cut at every byte and spoilt at every length.

use super::*;
use proptest::prelude::*;

/// A ClientHello's parts, each of which a test can replace.
#[derive(Clone)]
struct Hello {
    session_id: Vec<u8>,
    cipher_suites: Vec<u8>,
    compression: Vec<u8>,
    /// Type and data; none leaves out the block as a whole.
    extensions: Option<Vec<(u16, Vec<u8>)>>,
}

impl Hello {
    fn new() -> Self {
        Hello {
            session_id: vec![7; 32],
            cipher_suites: vec![0x13, 0x01, 0x0a, 0x0a],
            compression: vec![0],
            extensions: Some(vec![(0x0a0a, vec![]), (43, vec![2, 3, 4])]),
        }
    }

    fn with_sni(name: &str) -> Self {
        Self::with_server_name(server_names(&[(HOST_NAME, name.as_bytes())]))
    }

    fn with_server_name(data: Vec<u8>) -> Self {
        let mut hello = Self::new();
        hello.extensions.as_mut().unwrap().insert(1, (SERVER_NAME, data));
        hello
    }

    fn body(&self) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([9; 32]);
        body.extend(vector_8(&self.session_id));
        body.extend(vector_16(&self.cipher_suites));
        body.extend(vector_8(&self.compression));
        if let Some(extensions) = &self.extensions {
            let block: Vec<u8> = extensions
                .iter()
                .flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), vector_16(data)].concat())
                .collect();
            body.extend(vector_16(&block));
        }
        body
    }

    fn message(&self) -> Vec<u8> {
        message(&self.body())
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[CLIENT_HELLO], &length[1..], body].concat()
}

/// A message in records with fragments of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|fragment| [vec![HANDSHAKE, 3, 1], vector_16(fragment)].concat()).collect()
}

fn vector_8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vector_16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn server_names(names: &[(u8, &[u8])]) -> Vec<u8> {
    vector_16(&names.iter().flat_map(|(kind, name)| [vec![*kind], vector_16(name)].concat()).collect::<Vec<u8>>())
}

/// What the bytes are, read in pieces of `piece` bytes; what comes after the first answer is not read.
fn read(bytes: &[u8], piece: usize) -> String {
    let mut reader = ClientHelloReader::default();
    for piece in bytes.chunks(piece.max(1)) {
        match reader.read(piece) {
            Progress::NeedsMore => {}
            progress => return text(&progress),
        }
    }
    text(&Progress::NeedsMore)
}

fn text(progress: &Progress<'_>) -> String {
    match progress {
        Progress::NeedsMore => "needs more".to_owned(),
        Progress::NotTls => "not TLS".to_owned(),
        Progress::Invalid(invalid) => format!("invalid: {invalid}"),
        Progress::Complete(Sni::Name(name)) => name.to_string(),
        Progress::Complete(Sni::None) => "no SNI".to_owned(),
        Progress::Complete(Sni::IpLiteral) => "IP".to_owned(),
        Progress::Complete(Sni::Invalid(invalid)) => format!("no name: {invalid}"),
    }
}

fn read_whole(hello: &Hello) -> String {
    read(&records(&hello.message(), MAX_FRAGMENT), usize::MAX)
}

#[test]
fn finds_the_server_name() {
    for (sni, expected) in [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("127.0.0.1", "IP"),
        ("::1", "IP"),
        (
            "0x7f.1",
            "no name: the last label is a number: an IPv4 address, but not in dotted decimal (four numbers from 0 to 255)",
        ),
        ("a..b", "no name: a label is empty (two dots in a row, or one at the start)"),
        ("bücher.example", "no name: the name is not ASCII; on the wire only A-labels (xn--) are names"),
        ("a\0.example.com", "no name: '\\0' may not stand in a name"),
        ("a.example.com:443", "no name: ':' may not stand in a name"),
    ] {
        assert_eq!(read_whole(&Hello::with_sni(sni)), expected, "{sni}");
    }
}

#[test]
fn tells_a_hello_without_a_name_from_one_that_cannot_be_read() {
    assert_eq!(read_whole(&Hello::new()), "no SNI");
    assert_eq!(read_whole(&Hello { extensions: None, ..Hello::new() }), "no SNI");
    assert_eq!(read_whole(&Hello { extensions: Some(vec![]), ..Hello::new() }), "no SNI");
    // A name of a type that nobody has defined is none that we know.
    let other = server_names(&[(1, b"x")]);
    assert_eq!(read_whole(&Hello::with_server_name(other)), "no SNI");
}

#[test]
fn refuses_fields_that_are_wrong() {
    let hello = Hello::new();
    let with = |extensions: Vec<(u16, Vec<u8>)>| Hello { extensions: Some(extensions), ..Hello::new() };
    for (hello, expected) in [
        (Hello { session_id: vec![1; 33], ..hello.clone() }, "the length of legacy_session_id"),
        (Hello { cipher_suites: vec![], ..hello.clone() }, "the length of cipher_suites"),
        (Hello { cipher_suites: vec![1, 2, 3], ..hello.clone() }, "the length of cipher_suites"),
        (Hello { compression: vec![], ..hello.clone() }, "the length of legacy_compression_methods"),
        (with(vec![(43, vec![]), (16, vec![]), (43, vec![])]), "extension 43 twice"),
        (with(vec![(0xffff, vec![]), (0xffff, vec![])]), "extension 65535 twice"),
        (Hello::with_server_name(vec![]), "it ends within server_name_list"),
        (Hello::with_server_name(vec![0, 0]), "the length of server_name_list"),
        (Hello::with_server_name(server_names(&[(HOST_NAME, b"")])), "the length of host_name"),
        (
            Hello::with_server_name(server_names(&[(HOST_NAME, b"a.example"), (HOST_NAME, b"b.example")])),
            "several host names",
        ),
        (
            Hello::with_server_name([server_names(&[(HOST_NAME, b"a.example")]), vec![0]].concat()),
            "bytes after the end of server_name_list",
        ),
    ] {
        assert_eq!(read_whole(&hello), format!("invalid: {expected}"));
    }
    let trailing = message(&[hello.body(), vec![0]].concat());
    assert_eq!(read(&records(&trailing, MAX_FRAGMENT), usize::MAX), "invalid: bytes after the end of ClientHello");
}

#[test]
fn reads_every_fragmentation_alike() {
    let message = Hello::with_sni("api.example.com").message();
    for fragment in [1, 2, 3, 4, 5, 7, 64, message.len() - 1, message.len()] {
        let bytes = records(&message, fragment);
        for piece in [1, 2, 5, 6, 100, usize::MAX] {
            assert_eq!(read(&bytes, piece), "api.example.com", "records of {fragment}, pieces of {piece}");
        }
    }
}

#[test]
fn needs_more_at_every_prefix() {
    let bytes = records(&Hello::with_sni("api.example.com").message(), 50);
    for end in 0..bytes.len() {
        assert_eq!(read(&bytes[..end], usize::MAX), "needs more", "{end} bytes");
    }
}

#[test]
fn what_follows_the_hello_is_not_read() {
    let mut bytes = records(&Hello::with_sni("api.example.com").message(), MAX_FRAGMENT);
    bytes.extend(b"\x17\x03\x03\0\x05early and then some");
    assert_eq!(read(&bytes, usize::MAX), "api.example.com");
    // A second message in the hello's own record.
    let two = [Hello::with_sni("api.example.com").message(), Hello::with_sni("evil.example").message()].concat();
    assert_eq!(read(&records(&two, MAX_FRAGMENT), usize::MAX), "api.example.com");
}

#[test]
fn tells_other_protocols_from_tls() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"PRI * HTTP/2.0",
        b"SSH-2.0-OpenSSH",
        b"\x80\x2e\x01\x03\x01\0\x15\0\0\0\x10", // an SSLv2 hello
        b"\x15\x03\x01\0\x02\x02\x28",           // an alert
        b"\x16\x02\0\0\x05\x02",
        b"\0",
    ] {
        assert_eq!(read(bytes, usize::MAX), "not TLS", "{}", bytes.escape_ascii());
        assert_eq!(read(bytes, 1), "not TLS", "{}", bytes.escape_ascii());
    }
}

#[test]
fn refuses_records_and_messages_that_are_wrong() {
    let first = [&[HANDSHAKE, 3, 1][..], &vector_16(&[CLIENT_HELLO, 0, 1, 0])].concat();
    for (bytes, expected) in [
        (vec![HANDSHAKE, 3, 1, 0, 0], "a record that is empty or longer than 16 KiB"),
        (vec![HANDSHAKE, 3, 1, 0x40, 1], "a record that is empty or longer than 16 KiB"),
        (vec![HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0], "a handshake message of type 2"),
        (vec![HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 1, 0, 0], "longer than 65536 bytes"),
        ([&first[..], &[21, 3, 1]].concat(), "a record of type 21 before the end"),
        ([&first[..], &[HANDSHAKE, 2]].concat(), "a record of version 2"),
        (vec![HANDSHAKE, 2, 0, 0, 5, CLIENT_HELLO], "a record of version 2"),
        ([&first[..], &[HANDSHAKE, 3, 3, 0, 0]].concat(), "a record that is empty or longer than 16 KiB"),
    ] {
        assert_eq!(read(&bytes, usize::MAX), format!("invalid: {expected}"), "{}", bytes.escape_ascii());
        assert_eq!(read(&bytes, 1), format!("invalid: {expected}"), "{}", bytes.escape_ascii());
    }
}

#[test]
fn an_endless_hello_ends_at_the_limit() {
    // A message that claims 60,000 bytes, in records of one byte each.
    let message = [&[CLIENT_HELLO, 0, 0xea, 0x60][..], &[0; 60_000]].concat();
    let bytes = records(&message, 1);
    for piece in [1, 1000, usize::MAX] {
        let mut reader = ClientHelloReader::default();
        let mut given = 0;
        let answer = bytes.chunks(piece.min(bytes.len())).find_map(|piece| {
            given += piece.len();
            match reader.read(piece) {
                Progress::NeedsMore => None,
                progress => Some(text(&progress)),
            }
        });
        assert_eq!(answer.as_deref(), Some("invalid: longer than 65536 bytes"));
        assert!(
            given > MAX_BYTES && (piece == usize::MAX || given <= MAX_BYTES + piece),
            "{given} in pieces of {piece}"
        );
        assert!(reader.message.len() <= MAX_BYTES);
    }
}

#[test]
fn a_hello_of_nearly_the_limit_is_read() {
    let mut hello = Hello::with_sni("api.example.com");
    hello.extensions.as_mut().unwrap().push((21, vec![0; 60_000]));
    assert_eq!(read(&records(&hello.message(), MAX_FRAGMENT), 1000), "api.example.com");
}

#[test]
fn every_spoilt_byte_gets_an_answer_without_panic() {
    let bytes = records(&Hello::with_sni("api.example.com").message(), 60);
    for position in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut spoilt = bytes.clone();
            spoilt[position] = value;
            let whole = read(&spoilt, usize::MAX);
            assert_eq!(read(&spoilt, 1), whole, "byte {position} = {value}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_read_alike_in_any_pieces(
        tail in prop::collection::vec(any::<u8>(), 0..200),
        piece in 1usize..50,
    ) {
        for head in [&[][..], &[HANDSHAKE, 3, 1, 0, 100, CLIENT_HELLO, 0, 0, 90]] {
            let bytes = [head, &tail].concat();
            prop_assert_eq!(read(&bytes, piece), read(&bytes, usize::MAX));
        }
    }
}
