//! Findings as SARIF 2.1.0 (OASIS), which code review tools show beside the lines.

use serde_json::{Value, json};

use super::finding::Finding;
use super::rule;

/// The whole log.
#[must_use]
pub fn log(findings: &[Finding]) -> Value {
    let rules: Vec<Value> = rule::ALL
        .iter()
        .map(|rule| {
            json!({
                "id": rule.code,
                "name": rule.name,
                "shortDescription": {"text": rule.about},
                "defaultConfiguration": {"level": rule.severity.as_str()},
            })
        })
        .collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "egressctl", "version": env!("CARGO_PKG_VERSION"), "rules": rules}},
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let mut location = serde_json::Map::new();
    location.insert("artifactLocation".to_owned(), json!({"uri": uri(&finding.location.origin)}));
    if finding.location.at.line > 0 {
        let region = json!({"startLine": finding.location.at.line, "startColumn": finding.location.at.column});
        location.insert("region".to_owned(), region);
    }
    json!({
        "ruleId": finding.rule.code,
        "ruleIndex": rule::ALL.iter().position(|rule| *rule == finding.rule),
        "level": finding.severity.as_str(),
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": location}],
    })
}

/// A path as a relative URI: what may not stand in one is written as `%XX`.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}
