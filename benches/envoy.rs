//! What the filter costs in a real Envoy: CPU per request of Envoy's process, beside no filter, a filter that does nothing
//! (built with the SDK as it comes) and Envoy's own RBAC; memory and loading time of a large list.
//!
//! All variants run in one Envoy with one worker, in turns, and the median of the rounds counts: machines differ and are
//! noisy, ratios hold.

mod measure;
// Shared with the tests.
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use measure::{Measured, cpu, median, pin, print_costs};
use serde_json::{Value, json};
use support::client;
use support::envoy::{Envoy, needed, new_folder};
use support::sidecar;
use support::upstream::Upstream;

const ROUNDS: usize = 80;
const REQUESTS: usize = 1_600;
const CONNECTIONS: usize = 8;
/// The position of the no-op's variant.
const NOOP: usize = 1;
const INTERNAL: &str = "reviews.default.svc.cluster.local";

struct Variant {
    name: &'static str,
    /// The variant without a filter that does otherwise the same.
    base: usize,
    filters: Vec<Value>,
    hosts: Vec<String>,
    answer: Answer,
}

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Upstream,
    Envoy,
    /// With a denial.
    Filter,
}

#[allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    // `cargo test --benches` runs this with --test: measuring is for `cargo bench`.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    // `cargo bench --bench envoy -- load` measures only that.
    if std::env::args().any(|argument| argument == "load") {
        load();
        return;
    }
    let variants = variants();
    let upstream = Upstream::start();
    let folder = new_folder();
    let listeners: Vec<Value> = variants.iter().map(listener).collect();
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &listeners, upstream.address));
    let mut clients: Vec<Vec<TcpStream>> = variants.iter().map(|variant| connect(envoy.port(variant.name))).collect();

    pin(envoy.pid(), 0);
    pin(std::process::id(), 1);
    // V8 compiles what is hot in the background: let it.
    for _ in 0..6 {
        for (variant, clients) in variants.iter().zip(&mut clients) {
            drive(clients, variant);
        }
    }
    let mut rounds = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((variant, clients), costs) in variants.iter().zip(&mut clients).zip(&mut rounds) {
            let before = cpu(envoy.pid());
            drive(clients, variant);
            costs.push((cpu(envoy.pid()) - before).as_secs_f64() * 1e6 / REQUESTS as f64);
        }
    }
    println!("\nCPU of Envoy per request, median of {ROUNDS} rounds of {REQUESTS} requests\n");
    let measured = variants.iter().zip(&rounds).map(|(variant, rounds)| Measured {
        name: variant.name,
        base: variant.base,
        rounds,
    });
    print_costs(&measured.collect::<Vec<Measured>>(), NOOP);
    drop(envoy);
    load();
}

/// Memory of a VM and time to load, for the list in two shapes.
#[allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn load() {
    println!("\nLoading 50,000 hosts\n");
    println!("{:<44} {:>10} {:>10} {:>8} {:>10} {:>8}", "", "JSON KiB", "VM KiB", "x JSON", "ms", "x serde");
    let hosts = hosts(50_000);
    let one_entry = json!({"registry": [{"hosts": hosts}]});
    let entries: Vec<Value> =
        hosts.iter().map(|host| json!({"hosts": [host], "ports": [{"number": 443, "protocol": "TLS"}]})).collect();
    for (name, config) in [("in one entry", one_entry), ("an entry each, with a port", json!({"registry": entries}))] {
        let config = config.to_string();
        let filters = [vec![sidecar::http_filter(&config)], vec![noop(&config)]];
        let [ours, plain] = filters.map(|filters| {
            let variant = Variant { name: "load", base: 0, filters, hosts: Vec::new(), answer: Answer::Envoy };
            let mut texts = Vec::new();
            // Several starts: the first loads of a process vary most.
            for _ in 0..5 {
                let listeners = [listener(&variant)];
                let upstream = SocketAddr::from(([127, 0, 0, 1], 9));
                let envoy = Envoy::start(sidecar::bootstrap(&json!({}), &listeners, upstream));
                envoy.wait("the log", || envoy.log().contains(" us").then_some(()));
                texts.push(envoy.log());
            }
            texts.join("\n")
        });
        let memory = median(&mut numbers_before(&ours, " KiB of memory"));
        let ours = median(&mut numbers_before(&ours, " us"));
        let plain = median(&mut numbers_before(&plain, " us"));
        println!(
            "{name:<44} {:>10} {memory:>10.0} {:>8.2} {:>10.1} {:>8.2}",
            config.len() / 1024,
            memory * 1024.0 / config.len() as f64,
            ours / 1000.0,
            ours / plain
        );
    }
    println!("\nVM KiB: the whole wasm memory, with the module's own data and stack, at its peak while loading.");
}

/// Every number that stands before `unit`.
fn numbers_before(text: &str, unit: &str) -> Vec<f64> {
    let mut numbers = Vec::new();
    for (end, _) in text.match_indices(unit) {
        let before = &text[..end];
        let start = before.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |position| position + 1);
        numbers.extend(before[start..].parse::<f64>());
    }
    assert!(!numbers.is_empty(), "no number before {unit:?} in {text}");
    numbers
}

fn variants() -> Vec<Variant> {
    let ten = hosts(10);
    let many = hosts(10_000);
    let most = hosts(50_000);
    let registry = |hosts: &[String]| sidecar::http_filter(&json!({"registry": [{"hosts": hosts}]}).to_string());
    let with_ports = json!({"registry": [{"hosts": most, "ports": [{"number": 80, "protocol": "HTTP"}]}]}).to_string();
    let wildcards: Vec<String> = most.iter().map(|host| format!("*.{host}")).collect();
    let below: Vec<String> = most.iter().map(|host| format!("a.b.{host}")).collect();
    let responses = json!({"registry": [{"hosts": ten}], "metrics": {"responses": true}}).to_string();
    let variant = |name, filters: Vec<Value>, hosts: &[String]| Variant {
        name,
        base: 0,
        filters,
        hosts: hosts.iter().step_by(hosts.len().div_ceil(1000)).cloned().collect(),
        answer: Answer::Upstream,
    };
    let internal = vec![INTERNAL.to_owned()];
    let other = vec!["other.test".to_owned()];
    let mut variants = vec![
        variant("no filter", vec![], &ten),
        variant("SDK no-op", vec![noop("")], &ten),
        variant("listed, 10 hosts", vec![registry(&ten)], &ten),
        variant("listed, 10,000 hosts", vec![registry(&many)], &many),
        variant("listed, 50,000 hosts", vec![registry(&most)], &most),
        variant("listed, 50,000 hosts, 10 of them in use", vec![registry(&most)], &ten),
        variant("listed on a port, 50,000 hosts", vec![sidecar::http_filter(&with_ports)], &most),
        variant("listed by wildcard, 50,000 wildcards", vec![registry(&wildcards)], &below),
        variant("mesh service, 50,000 hosts", vec![registry(&most)], &internal),
        variant("listed, 10 hosts, responses counted", vec![sidecar::http_filter(&responses)], &ten),
        variant("RBAC, 100 hosts", vec![rbac(&hosts(100))], &hosts(100)),
        variant("RBAC, 10,000 hosts", vec![rbac(&many)], &many),
    ];
    // What is denied has no upstream, so it is compared with what Envoy answers by itself.
    let base = variants.len();
    for (name, filters, hosts, answer) in [
        ("Envoy answers: no filter", vec![], &ten, Answer::Envoy),
        ("Envoy answers: listed, 50,000 hosts", vec![registry(&most)], &most, Answer::Envoy),
        ("denied, 50,000 hosts", vec![registry(&most)], &other, Answer::Filter),
    ] {
        variants.push(Variant { base, answer, ..variant(name, filters, hosts) });
    }
    variants
}

fn noop(config: &str) -> Value {
    let mut plugin = sidecar::plugin("noop", config);
    plugin["config"]["vm_config"]["code"]["local"]["filename"] =
        json!(needed("NOOP_WASM", "dist/noop.wasm", "make bench"));
    if config.is_empty() {
        plugin["config"].as_object_mut().expect("an object").remove("configuration");
    }
    json!({"name": "noop", "typed_config": plugin})
}

fn rbac(hosts: &[String]) -> Value {
    let permissions: Vec<Value> = hosts
        .iter()
        .map(|host| json!({"header": {"name": ":authority", "string_match": {"exact": host, "ignore_case": true}}}))
        .collect();
    json!({
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
            "rules": {
                "action": "ALLOW",
                "policies": {"hosts": {
                    "permissions": [{"or_rules": {"rules": permissions}}],
                    "principals": [{"any": true}],
                }},
            },
        },
    })
}

fn listener(variant: &Variant) -> Value {
    let route = match variant.answer {
        Answer::Upstream => json!({"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}),
        Answer::Envoy | Answer::Filter => json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}}),
    };
    let routes = json!({"virtual_hosts": [
        {
            "name": format!("{INTERNAL}:9080"),
            "domains": [INTERNAL],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": format!("outbound|9080||{INTERNAL}")}}],
        },
        {"name": "allow_any", "domains": ["*"], "routes": [route]},
    ]});
    sidecar::outbound_listener(variant.name, &variant.filters, json!({"route_config": routes}))
}

/// Names of the lengths that real lists have.
fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("api-{}.region-{}.example-{}.com", number, number % 17, number % 997)).collect()
}

fn connect(port: u16) -> Vec<TcpStream> {
    (0..CONNECTIONS).map(|_| client::connect(port, SocketAddr::from(([203, 0, 113, 10], 80)))).collect()
}

/// Requests on all connections at once, so that Envoy finds several at a time, as it does under load.
fn drive(clients: &mut [TcpStream], variant: &Variant) {
    let mut hosts = variant.hosts.iter().cycle();
    for _ in 0..REQUESTS / CONNECTIONS {
        for client in &mut *clients {
            let host = hosts.next().expect("a cycle has no end");
            client.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).expect("Envoy hung up");
        }
        for client in &mut *clients {
            let response = client::read_response(client).expect("Envoy hung up");
            let expected = if variant.answer == Answer::Filter { 403 } else { 200 };
            assert_eq!(response.status, expected, "{}: {response:?}", variant.name);
        }
    }
}
