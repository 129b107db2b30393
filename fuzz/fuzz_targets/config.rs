//! A plugin configuration: never a panic, and a bounded error.

#![no_main]

use egress_filter::config::KnownNode;
use egress_filter::policy::Policy;

libfuzzer_sys::fuzz_target!(|json: &[u8]| {
    if let Err(invalid) = Policy::from_json(json, &KnownNode::default()) {
        assert!(!invalid.problems().is_empty() && invalid.to_string().len() < 1 << 20);
    }
});
