//! Makes a connection through Envoy for every TLS and TCP case of `tests/scenarios`, and for every HTTP case that no route
//! of Istio's decides, as plain HTTP: in each of `tcp_proxy`'s modes, with and without a `tls_inspector`. Compares what
//! the client and the outside world see, what the access log says and what Prometheus would scrape.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;
use support::client;
use support::echo::Echo;
use support::envoy::{Envoy, new_folder};
use support::hello::client_hello;
use support::scenario::{self, Case, Scenario};
use support::sidecar::{self, CATCH_ALL, ConnectMode, MeshMode, TcpListener, route_to};

#[test]
fn envoy_does_what_every_scenario_expects() {
    let mut nodes: Vec<(scenario::Node, Vec<Scenario>)> = Vec::new();
    for scenario in scenario::all().into_iter().filter(|scenario| scenario.mesh == MeshMode::AllowAny) {
        match nodes.iter_mut().find(|(node, _)| *node == scenario.node) {
            Some((_, scenarios)) => scenarios.push(scenario),
            None => nodes.push((scenario.node.clone(), vec![scenario])),
        }
    }
    for mode in [ConnectMode::TlsInspector].into_iter().chain(ConnectMode::basic()) {
        let cases: usize = nodes.iter().map(|(node, scenarios)| run(mode, node, scenarios)).sum();
        assert!(cases > 140, "only {cases} connections were made");
    }
}

fn run(mode: ConnectMode, node: &scenario::Node, scenarios: &[Scenario]) -> usize {
    let outside = Echo::start(b"");
    let folder = new_folder();
    let access_log = folder.join("access.log");
    let listeners: Vec<Value> = scenarios
        .iter()
        .map(|scenario| {
            TcpListener {
                name: &scenario.name,
                chain: CATCH_ALL,
                cluster: "PassthroughCluster",
                mode,
                filters: vec![sidecar::tcp_filter(&scenario.config.to_string())],
                access_log: &access_log,
            }
            .build()
        })
        .collect();
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&node.metadata(), &listeners, outside.address));

    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut made = Vec::new();
    for scenario in scenarios {
        let port = envoy.port(&scenario.name);
        for case in scenario.cases.iter().filter(|case| is_a_connection(case)) {
            let source_port = 1_000 + u16::try_from(made.len()).unwrap();
            let bytes = first_bytes(case);
            let before = (outside.connections(), outside.bytes());
            let mut stream = client::connect_as(source_port, port, case.to);
            // It may be closed by now.
            let _ = stream.write_all(&bytes);
            let echoed = client::read_up_to(&mut stream, bytes.len());
            let context = format!("{mode:?}, {}: {case:?}", scenario.name);
            let [verdict, reason, label] = case.expected();
            if verdict == "denied" {
                assert_eq!(echoed, b"", "{context}");
                assert_eq!(outside.bytes(), before.1, "{context}");
                if mode == ConnectMode::OnDownstreamData {
                    assert_eq!(outside.connections(), before.0, "{context}");
                }
            } else {
                assert_eq!(echoed, bytes, "{context}");
            }
            *counts.entry(format!("{label} {verdict} {reason}")).or_default() += 1;
            made.push((scenario, case));
        }
    }
    check_access_log(mode, &envoy, &made);
    assert_eq!(decisions(&envoy), counts, "{mode:?}");
    envoy.wait("no active connection", || {
        let active = envoy.metrics("egress_connections_active");
        (!active.is_empty() && active.iter().all(|(_, count)| *count == 0)).then_some(())
    });
    made.len()
}

/// Whether a case can be made of a connection: HTTP only where Istio has no route for the name, which on TCP routes
/// nothing.
fn is_a_connection(case: &Case) -> bool {
    match &case.host {
        Some(host) => !case.grpc && route_to(host.rsplit_once(':').map_or(host, |(host, _)| host)).is_none(),
        None => true,
    }
}

fn first_bytes(case: &Case) -> Vec<u8> {
    match (&case.host, &case.sni) {
        (Some(host), _) => format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
        (None, Some(sni)) => client_hello(Some(sni.as_str()).filter(|sni| !sni.is_empty())),
        // PostgreSQL's SSLRequest.
        (None, None) => vec![0, 0, 0, 8, 4, 210, 22, 47],
    }
}

/// Connections by host, verdict and reason, whatever protocol they were taken for: where the address decides, none.
fn decisions(envoy: &Envoy) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (series, count) in envoy.metrics("egress_connections_total") {
        let label = |name: &str| {
            let start = series.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
            let end = series[start..].find('"').unwrap();
            series[start..start + end].to_owned()
        };
        let key = format!("{} {} {}", label("egress_host"), label("egress_verdict"), label("egress_reason"));
        *found.entry(key).or_default() += count;
    }
    found
}

fn check_access_log(mode: ConnectMode, envoy: &Envoy, made: &[(&Scenario, &Case)]) {
    let path = envoy.folder.join("access.log");
    let lines = envoy.wait("every access log line", || {
        let text = fs::read_to_string(&path).ok()?;
        (text.lines().count() >= made.len()).then_some(text)
    });
    let mut seen = 0;
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let source: SocketAddr = line["source"].as_str().unwrap().parse().unwrap();
        let (scenario, case) = made[usize::from(source.port() - 1_000)];
        let context = format!("{mode:?}, {}: {case:?}: {line}", scenario.name);
        assert!(matches!(source.ip(), IpAddr::V4(_)) == case.to.is_ipv4(), "{context}");
        let [verdict, reason, label] = case.expected();
        let expected = if matches!(reason, "listed" | "mesh_internal") {
            [Value::Null, Value::Null, Value::Null]
        } else {
            [verdict, reason, label].map(Value::from)
        };
        assert_eq!([&line["verdict"], &line["reason"], &line["host"]], expected.each_ref(), "{context}");
        if verdict == "denied" {
            assert!(line["sent_upstream"].as_u64().unwrap_or_default() == 0, "{context}");
        }
        seen += 1;
    }
    assert_eq!(seen, made.len());
}
