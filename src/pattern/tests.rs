//! One line a case; `globset` is the second opinion on what a glob matches.

use super::*;
use globset::{GlobBuilder, GlobMatcher};
use proptest::prelude::*;

fn pattern(text: &str) -> HostPattern<'_> {
    HostPattern::from_config(text).unwrap()
}

#[test]
fn reads_patterns_into_normal_form() {
    for (text, expected) in [
        ("API.Stripe.com", "api.stripe.com"),
        ("api.stripe.com.", "api.stripe.com"),
        ("*.Stripe.com.", "*.stripe.com"),
        ("*.com", "*.com"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("api-*.Example.com", "api-*.example.com"),
        ("api-*.bücher.example", "api-*.xn--bcher-kva.example"),
        ("bücher.*.bücher.example", "xn--bcher-kva.*.xn--bcher-kva.example"),
        ("*-eu.example.com", "*-eu.example.com"),
        ("a.*.example.com", "a.*.example.com"),
        ("*.api-*.example.com", "*.api-*.example.com"),
        ("*.*.example.com", "*.*.example.com"),
        ("a**b.example.com", "a*b.example.com"),
        ("**.example.com", "*.example.com"),
    ] {
        assert_eq!(pattern(text).to_string(), expected, "{text}");
    }
}

#[test]
fn refuses_what_is_no_pattern_and_says_what_to_write() {
    for (text, expected) in [
        ("", "the name is empty"),
        ("*", "`*` would match every host; name the hosts (outboundTrafficPolicy.mode: ALLOW_ANY allows all)"),
        ("*.", "`*` would match every host; name the hosts (outboundTrafficPolicy.mode: ALLOW_ANY allows all)"),
        ("**", "`*` would match every host; name the hosts (outboundTrafficPolicy.mode: ALLOW_ANY allows all)"),
        ("*..", "the name is empty"),
        ("*.example.com..", "a label is empty (two dots in a row, or one at the start)"),
        ("*example.com", "the wildcard must be a whole label; use \"*.example.com\""),
        ("*-example.com", "the wildcard must be a whole label; use \"*.example.com\""),
        ("api-*.com", "a wildcard may not stand in the last 2 labels"),
        ("api.*.com", "a wildcard may not stand in the last 2 labels"),
        ("api.*", "a wildcard may not stand in the last 2 labels"),
        ("*.*", "a wildcard may not stand in the last 2 labels"),
        ("b*cher.bücher.ex*mple", "a wildcard may not stand in the last 2 labels"),
        ("*ü.example.com", "a label with a wildcard must be ASCII"),
        ("10.0.0.1", "an IP address is not a host; list \"10.0.0.1\" under addresses"),
        ("10.0.0.0/8", "'/' may not stand in a name; this is an address: list \"10.0.0.0/8\" under addresses"),
        ("::1", "':' may not stand in a name; this is an address: list \"::1\" under addresses"),
        (
            "10.0.0",
            "the last label is a number: an IPv4 address, but not in dotted decimal (four numbers from 0 to 255)",
        ),
        (
            "*.example.1",
            "the last label is a number: an IPv4 address, but not in dotted decimal (four numbers from 0 to 255)",
        ),
        (
            "api-*.example.1",
            "the last label is a number: an IPv4 address, but not in dotted decimal (four numbers from 0 to 255)",
        ),
        ("https://a.com/b", "':' may not stand in a name; use \"a.com\""),
        ("a.com/b", "'/' may not stand in a name; use \"a.com\""),
        ("a.com:443", "':' may not stand in a name; use \"a.com\" and ports: [{number: 443}]"),
        ("ns/a.com", "'/' may not stand in a name; use \"a.com\""),
        ("10.0.0.1:443", "':' may not stand in a name; this is an address: list \"10.0.0.1\" under addresses"),
        ("[::1]:443", "'[' may not stand in a name; this is an address: list \"::1\" under addresses"),
        ("api?.a.com", "'?' may not stand in a name"),
        ("u@a.com", "user information may not stand before the host; use \"a.com\""),
        (" a.com", "' ' may not stand in a name; use \"a.com\""),
        ("a..com", "a label is empty (two dots in a row, or one at the start)"),
    ] {
        let error = HostPattern::from_config(text).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn matches_names() {
    for (text, matching, other) in [
        ("a.com", &["a.com"][..], &["b.com", "x.a.com", "a.com.b"][..]),
        ("*.a.com", &["x.a.com", "x.y.a.com"], &["a.com", "xa.com", "a.com.x.com"]),
        ("api-*.a.com", &["api-.a.com", "api-eu.a.com"], &["api.a.com", "x.api-eu.a.com", "api-eu.b.a.com", "a.com"]),
        ("*-eu.a.com", &["x-eu.a.com", "-eu.a.com"], &["x-us.a.com", "y.x-eu.a.com"]),
        ("a*b*c.a.com", &["abc.a.com", "axbxc.a.com", "abbcc.a.com"], &["ab.a.com", "acb.a.com"]),
        ("x.*.a.com", &["x.y.a.com"], &["x.a.com", "x.y.z.a.com", "y.y.a.com"]),
        ("*.x-*.a.com", &["y.x-.a.com", "y.z.x-1.a.com"], &["x-1.a.com", "x-1.y.a.com"]),
        ("*.*.a.com", &["x.y.a.com", "x.y.z.a.com"], &["x.a.com"]),
    ] {
        for host in matching {
            assert!(pattern(text).matches(&HostName::from_config(host).unwrap()), "{text} should match {host}");
        }
        for host in other {
            assert!(!pattern(text).matches(&HostName::from_config(host).unwrap()), "{text} should not match {host}");
        }
    }
}

/// What globset makes of a pattern: `*` within one label, and a leading `*.` as one label or more.
fn globset(text: &str) -> GlobMatcher {
    let mut glob = text.replace('.', "/");
    while glob.contains("**") {
        glob = glob.replace("**", "*");
    }
    let glob = match glob.strip_prefix("*/") {
        Some(rest) => format!("**/?*/{rest}"),
        None => glob,
    };
    GlobBuilder::new(&glob).literal_separator(true).empty_alternates(true).build().unwrap().compile_matcher()
}

proptest! {
    #[test]
    fn agrees_with_globset(
        glob in "([ab*]{1,4}\\.){1,3}a\\.b",
        name in "([ab]{1,3}\\.){0,4}a\\.b",
    ) {
        let expected = globset(&glob).is_match(name.replace('.', "/"));
        let name = HostName::from_config(&name).unwrap();
        // A whole label `*` stands for a label, which is never empty.
        prop_assert_eq!(pattern(&glob).matches(&name), expected);
    }

    #[test]
    fn never_panics(text in "\\PC{0,40}", name in "[a-z.*]{0,40}") {
        let _ = HostPattern::from_config(&text);
        if let Ok(pattern) = HostPattern::from_config(&name) {
            let again = pattern.to_string();
            prop_assert_eq!(HostPattern::from_config(&again).map(|again| again.to_string()), Ok(again.clone()));
        }
    }
}
