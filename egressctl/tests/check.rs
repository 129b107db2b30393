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

#[test]
fn the_documentation_has_every_rule() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/egressctl/check.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut table = "| code | severity | name | about |\n|---|---|---|---|\n".to_owned();
    for rule in rule::ALL {
        let severity = rule.severity.as_str();
        table.push_str(&format!("| {} | {severity} | `{}` | {} |\n", rule.code, rule.name, rule.about));
    }
    let (before, found) = text.split_at(text.find("| code |").unwrap_or(text.len()));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{before}{table}")).unwrap();
    } else {
        assert_eq!(found, table, "BLESS=1 writes it anew");
    }
}
