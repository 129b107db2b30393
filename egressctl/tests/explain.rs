//! `egressctl explain` says what the filter does: for every scenario of the filter's own tests, and for random
//! configurations and destinations, each of which goes through a real Envoy.

#[path = "../../tests/support/random.rs"]
mod random;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "support/worlds.rs"]
mod worlds;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use random::Random;
use serde_json::Value;
use support::client;
use support::echo::Echo;
use support::envoy::{Envoy, new_folder};
use support::hello::client_hello;
use support::scenario::{self, Case, Node, Scenario};
use support::sidecar::{self, CATCH_ALL, ConnectMode, MeshMode, RouteTo, TcpListener, route_to};
use support::upstream::Upstream;
use worlds::{Asked, Form, configuration};

/// Verdict, reason and host, for each URL.
fn explain(folder: &Path, config: &Value, node: &Node, options: &[&str], urls: &[String]) -> Vec<[String; 3]> {
    let file = folder.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egressctl"));
    command.args(["explain", "-o", "json", "-f"]).arg(&file).args(options);
    for (option, value) in [("-n", &node.namespace), ("--workload", &node.workload)] {
        if let Some(value) = value {
            command.args([option, value]);
        }
    }
    for (key, value) in &node.labels {
        command.args(["-l", &format!("{key}={value}")]);
    }
    let output = command.args(urls).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let answers: Vec<Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{config} {urls:?}: {error}: {errors}"));
    let text = |answer: &Value, key: &str| answer[key].as_str().unwrap().to_owned();
    let found: Vec<[String; 3]> =
        answers.iter().map(|answer| ["verdict", "reason", "host"].map(|key| text(answer, key))).collect();
    let is_denied = found.iter().any(|[verdict, ..]| verdict != "allowed");
    assert_eq!(output.status.code(), Some(i32::from(is_denied)), "{found:?}");
    assert_eq!(found.len(), urls.len());
    found
}

#[test]
fn says_of_every_scenario_what_the_filter_does() {
    let folder = new_folder();
    let mut cases = 0;
    for scenario in scenario::all() {
        for case in &scenario.cases {
            let Some(url) = url_of(case) else { continue };
            let found = explain(&folder, &scenario.config, &scenario.node, &route_of(&scenario, case), &[url]);
            assert_eq!(found, [case.expected().map(str::to_owned)], "{}: {case:?}", scenario.name);
            cases += 1;
        }
    }
    assert!(cases > 150, "only {cases} cases were asked");
}

/// What a URL cannot say is left out: Hosts with characters that end an authority or with a port that is none, and SNIs
/// that are IP addresses.
fn url_of(case: &Case) -> Option<String> {
    let to = case.to;
    let url = match (&case.host, &case.sni) {
        (Some(host), _) if host.contains(['/', '?', '#', '@']) => return None,
        (Some(host), _) if host.rsplit_once(':').is_some_and(|(_, port)| !host.ends_with(']') && !is_port(port)) => {
            return None;
        }
        (Some(host), _) => {
            // The port that counts is the connection's.
            let scheme = if case.grpc { "grpc" } else { "http" };
            format!("{scheme}://{host}@{to}")
        }
        (None, Some(sni)) if sni.contains(['/', '?', '#', '@', ':']) || sni.parse::<std::net::IpAddr>().is_ok() => {
            return None;
        }
        (None, Some(sni)) => format!("tls://{sni}:1@{to}"),
        (None, None) => format!("tcp://{to}"),
    };
    Some(url)
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The route that the tests of the filter give this host.
fn route_of(scenario: &Scenario, case: &Case) -> Vec<&'static str> {
    let host = case.host.as_deref().map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host));
    match (host.and_then(route_to), host) {
        (Some(RouteTo::Cluster(cluster)), _) => vec!["--route", cluster.rsplit('|').next().unwrap()],
        (Some(RouteTo::Redirect), Some("moved.test")) => vec!["--route", "moved.test"],
        (Some(RouteTo::Redirect), _) => vec!["--route", "moved.default.svc.cluster.local"],
        _ if scenario.mesh == MeshMode::RegistryOnly => vec!["--route", "blackhole"],
        _ => vec!["--route", "passthrough"],
    }
}

/// How many configurations, and destinations for each, go through Envoy.
const CONFIGURATIONS: usize = 40;
const DESTINATIONS: usize = 30;

#[test]
fn says_of_any_destination_what_envoy_does() {
    let mut random = Random(20_261_125);
    let node = Node { namespace: Some("shop".into()), workload: Some("client".into()), labels: BTreeMap::new() };
    let folder = new_folder();
    let configs: Vec<Value> = (0..CONFIGURATIONS).map(|_| configuration(&mut random)).collect();
    let logs = [folder.join("http.log"), folder.join("tcp.log")];
    let listeners = |build: &dyn Fn(&str, &str) -> Value| -> Vec<Value> {
        configs.iter().enumerate().map(|(number, config)| build(&number.to_string(), &config.to_string())).collect()
    };
    // One Envoy for each plugin: what PassthroughCluster leads to speaks HTTP in the one and echoes in the other.
    let (upstream, echo) = (Upstream::start(), Echo::start(b""));
    let over_http = listeners(&|name, config| {
        sidecar::http_listener(name, MeshMode::AllowAny, &[sidecar::http_filter(config)], &logs[0])
    });
    let over_tcp = listeners(&|name, config| {
        let filters = vec![sidecar::tcp_filter(config)];
        let (cluster, mode) = ("PassthroughCluster", ConnectMode::Immediate);
        TcpListener { name, chain: CATCH_ALL, cluster, mode, filters, access_log: &logs[1] }.build()
    });
    let envoys = [(over_http, upstream.address), (over_tcp, echo.address)]
        .map(|(listeners, to)| Envoy::start(sidecar::bootstrap(&node.metadata(), &listeners, to)));

    let mut expected: BTreeMap<String, (String, [String; 3])> = BTreeMap::new();
    for (number, config) in configs.iter().enumerate() {
        let asked: Vec<Asked> = (0..DESTINATIONS).map(|_| Asked::any(&mut random)).collect();
        let urls: Vec<String> = asked.iter().map(Asked::url).collect();
        let answers = explain(&folder, config, &node, &[], &urls);
        for (asked, answer) in asked.iter().zip(answers) {
            let id = expected.len();
            let key = asked.send(&envoys, &number.to_string(), id);
            expected.insert(key, (format!("{config}\n{}", asked.url()), answer));
        }
    }
    let lines = envoys[0].wait("every access log line", || {
        let text: String = logs.iter().map(|log| fs::read_to_string(log).ok()).collect::<Option<_>>()?;
        (text.lines().count() >= expected.len()).then_some(text)
    });
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let key = match line["case"].as_str() {
            Some(case) => case.to_owned(),
            None => line["source"].as_str().unwrap().parse::<SocketAddr>().unwrap().port().to_string(),
        };
        let (context, [verdict, reason, host]) = expected.remove(&key).unwrap_or_else(|| panic!("{key}: {line}"));
        let left = if matches!(reason.as_str(), "listed" | "mesh_internal") {
            [Value::Null, Value::Null, Value::Null]
        } else {
            [verdict.clone().into(), reason.clone().into(), host.into()]
        };
        assert_eq!([&line["verdict"], &line["reason"], &line["host"]], left.each_ref(), "{context}");
        *verdicts.entry(format!("{verdict} {reason}")).or_default() += 1;
    }
    assert!(expected.is_empty(), "no line of {expected:?}");
    // Something of everything, or the sample says little.
    for wanted in [
        "allowed listed",
        "allowed mesh_internal",
        "allowed allow_any",
        "denied not_listed",
        "denied port_not_listed",
        "denied protocol_not_listed",
        "denied expired",
        "denied deny_listed",
        "denied invalid_name",
        "denied no_sni",
        "denied unverified_destination",
        "would_deny not_listed",
    ] {
        assert!(verdicts.contains_key(wanted), "no {wanted} among {verdicts:?}");
    }
}

trait Send {
    fn send(&self, envoys: &[Envoy; 2], listener: &str, id: usize) -> String;
}

impl Send for Asked {
    /// Sends it, waits for its end, and returns what its line in the access log is known by.
    fn send(&self, [http, tcp]: &[Envoy; 2], listener: &str, id: usize) -> String {
        let host = self.host;
        let bytes = match self.form {
            Form::Http | Form::Grpc => {
                let case = format!("case-{id}");
                let (method, rest, body) = match self.form {
                    Form::Grpc => ("POST", "Content-Type: application/grpc\r\nContent-Length: 5\r\n", "\0\0\0\0\0"),
                    _ => ("GET", "", ""),
                };
                let request = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nX-Case: {case}\r\n{rest}\r\n{body}");
                client::exchange(http.port(listener), self.to, request.as_bytes());
                return case;
            }
            Form::Tls => client_hello(Some(host)),
            Form::NoSni => client_hello(None),
            // PostgreSQL's SSLRequest.
            Form::Bytes => vec![0, 0, 0, 8, 4, 210, 22, 47],
        };
        let source = 2_000 + u16::try_from(id).unwrap();
        let mut stream = client::connect_as(source, tcp.port(listener), self.to);
        // It may be closed by now.
        let _ = stream.write_all(&bytes);
        client::read_up_to(&mut stream, bytes.len());
        source.to_string()
    }
}
