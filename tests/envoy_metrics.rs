//! What Prometheus scrapes and what the log says: bounded, whatever clients make up.

mod support;

use std::io::Write;
use std::net::SocketAddr;

use serde_json::{Value, json};
use support::client;
use support::envoy::{Envoy, new_folder};
use support::sidecar::{self, MeshMode};
use support::upstream::Upstream;

const DESTINATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

fn start(configs: &[Value]) -> (Envoy, Vec<u16>) {
    let upstream = Upstream::start();
    let folder = new_folder();
    let names: Vec<String> = (0..configs.len()).map(|number| format!("http-{number}")).collect();
    let listeners: Vec<Value> = configs
        .iter()
        .zip(&names)
        .map(|(config, name)| {
            let filter = sidecar::http_filter(&config.to_string());
            sidecar::http_listener(name, MeshMode::AllowAny, &[filter], &folder.join("access.log"))
        })
        .collect();
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &listeners, upstream.address));
    let ports = names.iter().map(|name| envoy.port(name)).collect();
    (envoy, ports)
}

fn get(port: u16, host: &str) -> u16 {
    client::exchange(port, DESTINATION, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).status
}

#[test]
fn made_up_hosts_make_a_bounded_number_of_series() {
    // One table for all configurations of a worker.
    let config = json!({"registry": [{"hosts": ["listed.test"]}], "metrics": {"unlistedHosts": 5, "responses": true}});
    let other = json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "metrics": {"unlistedHosts": 5}});
    let (envoy, ports) = start(&[config, other]);
    for number in 0..30 {
        assert_eq!(get(ports[0], &format!("made-up-{number}.test")), 403);
        assert_eq!(get(ports[1], &format!("made-up-{number}.test")), 200);
        assert_eq!(get(ports[1], &format!("also-{number}.test")), 200);
        assert_eq!(get(ports[0], &format!("bad..name-{number}")), 403);
        assert_eq!(get(ports[0], "listed.test"), 200);
    }
    let series = envoy.metrics("egress_requests_total");
    let count =
        |part: &str| -> u64 { series.iter().filter(|(name, _)| name.contains(part)).map(|(_, count)| *count).sum() };
    // Five hosts, each denied, allowed or both; `other` both ways; `invalid`; `listed.test`.
    assert!(series.len() <= 5 * 2 + 2 + 1 + 1, "{series:?}");
    assert_eq!(count(""), 150);
    assert_eq!(count("egress_host=\"listed.test\""), 30);
    assert_eq!(count("egress_host=\"invalid\""), 30);
    let overflow = count("egress_host=\"other\"");
    assert_eq!(envoy.metric("egress_unlisted_hosts_overflow_total"), overflow);
    assert!(overflow >= 90 - 5 * 2, "{series:?}");
}

#[test]
fn a_host_that_is_denied_again_and_again_is_logged_once() {
    let (envoy, ports) = start(&[json!({"denyMessage": "Register the host: go/egress"})]);
    for _ in 0..20 {
        get(ports[0], "denied.test");
    }
    get(ports[0], "last.test");
    let line =
        |host: &str| format!("denied {host}:80: no registry entry lists it (not_listed). Register the host: go/egress");
    envoy.wait("the last line in the log", || envoy.log().contains(&line("last.test")).then_some(()));
    assert_eq!(envoy.log().matches(&line("denied.test")).count(), 1, "{}", envoy.log());
}

#[test]
fn responses_are_counted_and_timed_when_asked_for() {
    let config = json!({"registry": [{"hosts": ["*.listed.test"]}], "metrics": {"responses": true}});
    let (envoy, ports) = start(&[config, json!({"registry": [{"hosts": ["quiet.test"]}]})]);
    for _ in 0..3 {
        get(ports[0], "a.listed.test");
    }
    get(ports[0], "denied.test");
    get(ports[1], "quiet.test");
    let series = envoy.wait("the responses", || {
        let series = envoy.metrics("egress_responses_total");
        (series.iter().map(|(_, count)| count).sum::<u64>() == 4).then_some(series)
    });
    assert_eq!(
        series,
        [
            ("egress_responses_total{egress_host=\"*.listed.test\",egress_response_class=\"2xx\"}".to_owned(), 3),
            ("egress_responses_total{egress_host=\"denied.test\",egress_response_class=\"4xx\"}".to_owned(), 1),
        ]
    );
    let timed =
        |host: &str| envoy.metric(&format!("egress_response_duration_milliseconds_count{{egress_host=\"{host}\"}}"));
    envoy.wait("the durations", || (timed("*.listed.test") == 3 && timed("denied.test") == 1).then_some(()));
    assert_eq!(timed("quiet.test"), 0);
}

#[test]
fn made_up_hosts_do_not_flood_the_log() {
    let (envoy, ports) = start(&[json!({})]);
    let mut stream = client::connect(ports[0], DESTINATION);
    for number in 0..1_050 {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: flood-{number}.test\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(client::read_response(&mut stream).unwrap().status, 403);
    }
    let too_many = "more than 1000 hosts within 300 s: further ones are counted, but not logged";
    envoy.wait("the line that says so", || envoy.log().contains(too_many).then_some(()));
    assert_eq!(envoy.log().matches(too_many).count(), 1);
    assert_eq!(envoy.log().matches("denied flood-").count(), 1_000);
    assert_eq!(envoy.metric("egress_unlisted_hosts_overflow_total"), 950);
}
