//! ClientHellos of real clients, recorded by `tests/client_hello/record.py`: read at every cut, spoilt at every byte, and
//! compared with what rustls reads.

use std::fs;
use std::path::Path;

use egress_filter::client_hello::{ClientHelloReader, Progress, Sni};
use rustls::server::Acceptor;

const NAME: &str = "api.example.com";

/// Name and bytes of each recording.
fn recordings() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client_hello/recorded");
    let mut recordings: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    recordings.sort();
    assert!(recordings.len() >= 10, "only {} recordings", recordings.len());
    recordings
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    NeedsMore,
    NotTls,
    Invalid,
    NoName,
    Name(String),
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Found {
    let mut reader = ClientHelloReader::default();
    for piece in pieces {
        match reader.read(piece) {
            Progress::NeedsMore => {}
            Progress::NotTls => return Found::NotTls,
            Progress::Invalid(_) => return Found::Invalid,
            Progress::Complete(Sni::Name(name)) => return Found::Name(name.to_string()),
            Progress::Complete(_) => return Found::NoName,
        }
    }
    Found::NeedsMore
}

/// What rustls makes of the same bytes.
fn rustls(bytes: &[u8]) -> Found {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Found::Invalid;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return name.map_or(Found::NoName, Found::Name);
            }
            Err(_) => return Found::Invalid,
        }
    }
    Found::NeedsMore
}

fn expected(client: &str) -> Found {
    if client.ends_with("no_sni") { Found::NoName } else { Found::Name(NAME.to_owned()) }
}

#[test]
fn finds_the_name_that_each_client_asks_for() {
    for (client, bytes) in recordings() {
        assert_eq!(read([bytes.as_slice()]), expected(&client), "{client}");
        assert_eq!(rustls(&bytes), expected(&client), "rustls, {client}");
    }
}

#[test]
fn reads_each_client_alike_at_every_cut() {
    for (client, bytes) in recordings() {
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(read([head, tail]), expected(&client), "{client}, cut at {cut}");
        }
        assert_eq!(read(bytes.chunks(1)), expected(&client), "{client}, byte by byte");
    }
}

#[test]
fn reads_each_client_alike_in_records_of_every_size() {
    for (client, bytes) in recordings() {
        let message = message(&bytes);
        for size in (1..20).chain([50, 100, 500, message.len()]) {
            let records: Vec<u8> = message.chunks(size).flat_map(record).collect();
            assert_eq!(read([records.as_slice()]), expected(&client), "{client}, records of {size}");
            assert_eq!(
                read(records.chunks(3)),
                expected(&client),
                "{client}, records of {size}, three bytes at a time"
            );
        }
    }
}

/// Spoiling any byte, the length fields among them, never makes a name that rustls would not read too, and never hides
/// one: a hello that is not read is refused.
#[test]
fn a_spoilt_byte_never_changes_the_name_unseen() {
    for (client, bytes) in recordings() {
        for position in 0..bytes.len() {
            let was = bytes[position];
            for value in [0, was.wrapping_sub(1), was.wrapping_add(1), was ^ 0x80, 0xff] {
                let mut spoilt = bytes.clone();
                spoilt[position] = value;
                let found = read([spoilt.as_slice()]);
                assert_eq!(read(spoilt.chunks(1)), found, "{client}, byte {position} = {value}");
                match rustls(&spoilt) {
                    Found::Name(name) => {
                        assert!(
                            found == Found::Name(name.clone()) || found == Found::Invalid,
                            "{client}, byte {position} = {value}: {found:?}, rustls reads {name}"
                        );
                    }
                    Found::NoName => assert!(
                        !matches!(found, Found::Name(_)),
                        "{client}, byte {position} = {value}: {found:?}, rustls reads no name"
                    ),
                    _ => {}
                }
            }
        }
    }
}

/// The handshake message of a recording, whose records are put together.
fn message(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = bytes {
        let length = usize::from(*high) << 8 | usize::from(*low);
        let (fragment, rest) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(fragment);
        bytes = rest;
    }
    message
}

fn record(fragment: &[u8]) -> Vec<u8> {
    let length = u16::try_from(fragment.len()).unwrap().to_be_bytes();
    [&[22, 3, 1], &length[..], fragment].concat()
}

/// The first flight of a rustls client, and that of one that resumes a session.
#[test]
fn finds_the_name_that_a_resuming_rustls_client_asks_for() {
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use std::sync::Arc;

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let server = Arc::new(server);
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = Arc::new(client);

    let mut lengths = Vec::new();
    for _ in 0..2 {
        let name = ServerName::try_from(NAME).unwrap();
        let mut client = ClientConnection::new(Arc::clone(&client), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        for cut in 0..=hello.len() {
            let (head, tail) = hello.split_at(cut);
            assert_eq!(read([head, tail]), Found::Name(NAME.to_owned()), "cut at {cut}");
        }
        lengths.push(hello.len());

        // The rest of the handshake, and the tickets behind it.
        let mut server = ServerConnection::new(Arc::clone(&server)).unwrap();
        server.read_tls(&mut hello.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let mut flight = Vec::new();
            server.write_tls(&mut flight).unwrap();
            client.read_tls(&mut flight.as_slice()).unwrap();
            client.process_new_packets().unwrap();
            flight.clear();
            client.write_tls(&mut flight).unwrap();
            server.read_tls(&mut flight.as_slice()).unwrap();
            server.process_new_packets().unwrap();
        }
    }
    // The second has a ticket in it.
    assert!(lengths[1] > lengths[0] + 50, "{lengths:?}");
}
