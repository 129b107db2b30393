//! Sends every HTTP request of `tests/scenarios` through Envoy, and compares what the client sees, what the access log
//! says and what Prometheus would scrape.

mod support;

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use support::client::{self, Response};
use support::envoy::{Envoy, new_folder};
use support::scenario::{self, Case, Scenario};
use support::sidecar::{self, MeshMode, RouteTo, route_to};
use support::upstream::Upstream;

#[test]
fn envoy_does_what_every_scenario_expects() {
    // One Envoy for each node; in it, a listener for each configuration.
    let mut nodes: Vec<(scenario::Node, Vec<Scenario>)> = Vec::new();
    for scenario in scenario::all() {
        match nodes.iter_mut().find(|(node, _)| *node == scenario.node) {
            Some((_, scenarios)) => scenarios.push(scenario),
            None => nodes.push((scenario.node.clone(), vec![scenario])),
        }
    }
    let cases: usize = nodes.iter().map(|(node, scenarios)| run(node, scenarios)).sum();
    assert!(cases > 100, "only {cases} requests were made");
}

fn run(node: &scenario::Node, scenarios: &[Scenario]) -> usize {
    let upstream = Upstream::start();
    let folder = new_folder();
    let access_log = folder.join("access.log");
    let listeners: Vec<Value> = scenarios
        .iter()
        .map(|scenario| {
            let filter = sidecar::http_filter(&scenario.config.to_string());
            sidecar::http_listener(&scenario.name, scenario.mesh, &[filter], &access_log)
        })
        .collect();
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&node.metadata(), &listeners, upstream.address));

    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut requests = Vec::new();
    for scenario in scenarios {
        let port = envoy.port(&scenario.name);
        for case in scenario.cases.iter().filter(|case| case.is_http()) {
            let id = requests.len().to_string();
            let host = case.host.as_deref().unwrap();
            let grpc = if case.grpc { "Content-Type: application/grpc\r\nContent-Length: 5\r\n" } else { "" };
            let body = if case.grpc { "\0\0\0\0\0" } else { "" };
            let method = if case.grpc { "POST" } else { "GET" };
            let request = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nX-Case: {id}\r\n{grpc}\r\n{body}");
            let response = client::exchange(port, case.to, request.as_bytes());
            check_response(scenario, case, &response);
            let [verdict, reason, label] = case.expected();
            let protocol = if case.grpc { "grpc" } else { "http" };
            let series = format!(
                "egress_requests_total{{egress_host=\"{label}\",egress_protocol=\"{protocol}\",\
                 egress_reason=\"{reason}\",egress_verdict=\"{verdict}\"}}"
            );
            *counts.entry(series).or_default() += 1;
            requests.push((scenario, case));
        }
    }
    check_access_log(&envoy, &requests);
    let found: BTreeMap<String, u64> = envoy.metrics("egress_requests_total").into_iter().collect();
    for (series, count) in &counts {
        assert_eq!(found.get(series), Some(count), "{series}");
    }
    assert_eq!(found.len(), counts.len(), "series that nobody expects: {found:?}");
    requests.len()
}

fn check_response(scenario: &Scenario, case: &Case, response: &Response) {
    let context = format!("{}: {case:?}: {response:?}", scenario.name);
    let [verdict, reason, _] = case.expected();
    if verdict == "denied" {
        assert_eq!(response.header("x-egress-denied"), Some(reason), "{context}");
        if case.grpc {
            assert_eq!(response.status, 200, "{context}");
            assert_eq!(response.header("grpc-status"), Some("7"), "{context}");
            assert!(response.header("grpc-message").unwrap().starts_with("egress denied: "), "{context}");
        } else {
            assert_eq!(response.status, 403, "{context}");
            assert_eq!(response.header("content-type"), Some("text/plain"), "{context}");
            assert!(response.text().starts_with("egress denied: "), "{context}");
            assert!(response.text().ends_with(&format!("({reason})\n")), "{context}");
        }
        return;
    }
    assert_eq!(response.header("x-egress-denied"), None, "{context}");
    let host = case.host.as_deref().unwrap();
    let expected = match (route_to(host.rsplit_once(':').map_or(host, |(host, _)| host)), scenario.mesh) {
        (Some(RouteTo::Redirect), _) => 301,
        (None, MeshMode::RegistryOnly) => 502,
        _ => 200,
    };
    assert_eq!(response.status, expected, "{context}");
    if expected == 200 {
        assert_eq!(response.text(), format!("outside: {}\n", host.to_ascii_lowercase()), "{context}");
    }
}

fn check_access_log(envoy: &Envoy, requests: &[(&Scenario, &Case)]) {
    let path = envoy.folder.join("access.log");
    let lines = envoy.wait("every access log line", || {
        // Envoy flushes its file logs when it is asked to.
        let text = fs::read_to_string(&path).ok()?;
        (text.lines().count() >= requests.len()).then_some(text)
    });
    let mut seen = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (scenario, case) = requests[line["case"].as_str().unwrap().parse::<usize>().unwrap()];
        let context = format!("{}: {case:?}: {line}", scenario.name);
        let [verdict, reason, label] = case.expected();
        if matches!(reason, "listed" | "mesh_internal") {
            assert_eq!(
                (&line["verdict"], &line["reason"], &line["host"]),
                (&Value::Null, &Value::Null, &Value::Null),
                "{context}"
            );
        } else {
            assert_eq!(line["verdict"], verdict, "{context}");
            assert_eq!(line["reason"], reason, "{context}");
            assert_eq!(line["host"], label, "{context}");
        }
        if verdict == "denied" {
            assert_eq!(line["details"], format!("egress_denied_{reason}"), "{context}");
            assert_eq!(line["sent_upstream"], 0, "{context}");
        }
        seen += 1;
    }
    assert_eq!(seen, requests.len());
}
