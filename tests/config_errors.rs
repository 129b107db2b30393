//! What a user is told about a configuration that is refused: each file of `tests/config_errors` with its exact text.
//!
//! `NAME.yaml` and `NAME.json` are plugin configurations, the latter taken byte by byte; `NAME.txt` is what
//! [`InvalidConfig`] says to it. `BLESS=1 cargo test --test config_errors` accepts the present texts.
//!
//! [`InvalidConfig`]: egress_filter::config::InvalidConfig

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use egress_filter::config::KnownNode;
use egress_filter::name::Authority;
use egress_filter::policy::Policy;

#[test]
fn every_refused_configuration_says_where_what_and_how_to_repair_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_errors");
    let bless = std::env::var_os("BLESS").is_some();
    let files: BTreeSet<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let (texts, sources): (Vec<_>, Vec<_>) =
        files.iter().partition(|path| path.extension().is_some_and(|e| e == "txt"));
    assert!(!sources.is_empty(), "no configuration was found in {}", folder.display());

    let mut wrong = Vec::new();
    for path in &sources {
        let name = path.file_name().unwrap().to_string_lossy();
        let found = match Policy::from_json(&json(path), &node()) {
            Ok(_) => {
                wrong.push(format!("{name}: accepted, and should not be"));
                continue;
            }
            Err(invalid) => format!("{invalid}\n"),
        };
        let golden = path.with_extension("txt");
        if bless {
            fs::write(&golden, found).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            wrong.push(format!("{name}:\n{}", diff(&expected, &found)));
        }
    }
    for path in texts {
        if !["yaml", "json"].iter().any(|extension| files.contains(&path.with_extension(extension))) {
            wrong.push(format!("{}: there is no configuration beside it", path.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} texts are wrong (`BLESS=1 cargo test --test config_errors` accepts what is found):\n\n{}",
        wrong.len(),
        sources.len(),
        wrong.join("\n")
    );
}

#[test]
fn bytes_that_are_no_text_are_no_configuration() {
    for (json, expected) in [
        (
            &b"{\"denyMessage\": \"\xff\"}"[..],
            "configuration: not valid JSON: invalid utf-8 sequence of 1 bytes from index 17",
        ),
        (
            b"{\"denyMessage\": \"\xe2\x82",
            "configuration: not valid JSON: incomplete utf-8 byte sequence from index 17",
        ),
        (b"\xff\xfe{\0}\0", "configuration: not valid JSON: invalid utf-8 sequence of 1 bytes from index 0"),
    ] {
        let invalid = Policy::from_json(json, &node()).unwrap_err();
        assert_eq!(invalid.to_string(), expected, "{}", json.escape_ascii());
    }
}

#[test]
fn names_that_only_a_client_can_send_have_a_text_too() {
    for (text, expected) in [
        ("bücher.example", "the name is not ASCII; on the wire only A-labels (xn--) are names"),
        ("[::1", "an IPv6 address stands in brackets, without a zone"),
        ("::1", "an IPv6 address stands in brackets, without a zone"),
        ("a.example:0", "the port is not a number from 1 to 65535"),
    ] {
        let invalid = Authority::from_wire(text.as_bytes()).unwrap_err();
        assert_eq!(invalid.to_string(), expected, "{text}");
    }
}

/// Runs in the namespace `dev`, so that some overrides match it and some do not.
fn node() -> KnownNode {
    KnownNode { namespace: Some("dev".to_owned()), ..KnownNode::default() }
}

fn json(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return fs::read(path).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    let value: serde_json::Value =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::to_vec(&value).unwrap()
}

/// The lines that only one of the texts has, behind `-` what was expected and behind `+` what was found.
fn diff(expected: &str, found: &str) -> String {
    let only = |sign: char, lines: &str, other: &str| -> Vec<String> {
        let other: BTreeSet<&str> = other.lines().collect();
        lines.lines().filter(|line| !other.contains(line)).map(|line| format!("  {sign} {line}\n")).collect()
    };
    let lines = [only('-', expected, found), only('+', found, expected)].concat();
    if lines.is_empty() { format!("  the order of the lines:\n{found}") } else { lines.concat() }
}
