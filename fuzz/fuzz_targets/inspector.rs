//! The first bytes of a connection, whatever its protocol: never a panic, and the same answer in one piece and byte by
//! byte.

#![no_main]

use egress_filter::inspect::Inspector;

fn read<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> String {
    let mut inspector = Inspector::default();
    match pieces.find_map(|piece| inspector.read(piece)) {
        Some(asked) => format!("{asked:?}"),
        None => format!("{:?} {:?} {:?}", inspector.end(), inspector.give_up(), inspector.time_out()),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| assert_eq!(read(std::iter::once(bytes)), read(bytes.chunks(1))));
