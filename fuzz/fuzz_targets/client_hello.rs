//! The first bytes of a connection: never a panic, and the same answer in one piece and byte by byte.

#![no_main]

use egress_filter::client_hello::{ClientHelloReader, Progress};

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut reader = ClientHelloReader::default();
    for piece in pieces {
        match reader.read(piece) {
            Progress::NeedsMore => {}
            answer => return format!("{answer:?}"),
        }
    }
    "needs more".to_owned()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert_eq!(read(std::iter::once(bytes)), read(bytes.chunks(1))));
