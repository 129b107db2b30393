//! Every rule of `egressctl check` is seen to find something.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use egressctl::check::rule;

#[test]
fn every_rule_has_a_golden_case_in_which_it_finds_something() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/check");
    let mut found = BTreeSet::new();
    for case in fs::read_dir(folder).unwrap() {
        let case = case.unwrap().path();
        if fs::read_to_string(case.join("cmd")).unwrap().contains("--rules") {
            continue;
        }
        let stdout = fs::read_to_string(case.join("stdout")).unwrap_or_default();
        found.extend(rule::ALL.iter().map(|rule| rule.code).filter(|code| stdout.contains(&format!(" {code} "))));
    }
    let missing: Vec<&str> = rule::ALL.iter().map(|rule| rule.code).filter(|code| !found.contains(code)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}
