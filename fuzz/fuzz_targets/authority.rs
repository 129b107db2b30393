//! A Host or `:authority`: never a panic, and what is read is read again as the same.

#![no_main]

use egress_filter::name::{Authority, Host};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Ok(Authority { host: Host::Name(name), .. }) = Authority::from_wire(text) {
        let again = Authority::from_wire(name.as_str().as_bytes());
        assert_eq!(again.map(|authority| authority.host), Ok(Host::Name(name.clone())));
    }
});
