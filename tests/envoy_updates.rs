//! Configuration updates in a running Envoy: a new list takes effect, a bad one is refused and the last good one goes on,
//! and no request or connection fails meanwhile.

mod support;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::client;
use support::echo::Echo;
use support::envoy::{Envoy, new_folder};
use support::hello::client_hello;
use support::sidecar::{self, CATCH_ALL, ConnectMode, MeshMode, TcpListener};
use support::upstream::Upstream;

const DESTINATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

/// An Envoy whose filter configuration comes by xDS (ECDS) from a file, as it comes from istiod.
struct Mesh {
    envoy: Envoy,
    port: u16,
    file: PathBuf,
    make: fn(&str) -> Value,
}

impl Mesh {
    fn start(root_id: &str, config: &str) -> Mesh {
        let upstream = Upstream::start();
        let first = sidecar::plugin(root_id, config);
        let make = |config: &str| sidecar::plugin("egress-http", config);
        Self::start_with(&first, make, upstream.address, |filter, access_log| {
            sidecar::http_listener("outbound", MeshMode::AllowAny, &[filter], access_log)
        })
    }

    fn start_tcp(config: &Value, upstream: SocketAddr) -> Mesh {
        let make = |config: &str| sidecar::network_plugin("egress-tcp", config);
        Self::start_with(&make(&config.to_string()), make, upstream, |filter, access_log| {
            let listener = TcpListener {
                name: "outbound",
                chain: CATCH_ALL,
                cluster: "PassthroughCluster",
                mode: ConnectMode::Immediate,
                filters: vec![filter],
                access_log,
            };
            listener.build()
        })
    }

    fn start_with(
        first: &Value,
        make: fn(&str) -> Value,
        upstream: SocketAddr,
        listener: impl FnOnce(Value, &Path) -> Value,
    ) -> Mesh {
        let folder = new_folder();
        let file = folder.join("ecds.json");
        write_resource(&file, first);
        let filter = json!({
            "name": "egress",
            "config_discovery": {
                "config_source": {"path_config_source": {"path": file}, "resource_api_version": "V3"},
                "type_urls": [first["@type"]],
            },
        });
        let listener = listener(filter, &folder.join("access.log"));
        let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &[listener], upstream));
        let port = envoy.port("outbound");
        Mesh { envoy, port, file, make }
    }

    fn push(&self, config: &Value) {
        write_resource(&self.file, &(self.make)(&config.to_string()));
    }

    fn status(&self, host: &str) -> u16 {
        status(self.port, host)
    }

    fn wait_for(&self, host: &str, status: u16) {
        self.envoy.wait(&format!("{host}: {status}"), || (self.status(host) == status).then_some(()));
    }

    /// How often Envoy refused a configuration.
    fn refused(&self) -> u64 {
        let stats = self.envoy.admin("/stats?filter=extension_config_discovery.*update_rejected");
        stats.lines().filter_map(|line| line.rsplit_once(": ")?.1.parse::<u64>().ok()).sum()
    }

    /// The value of the gauge for a configuration's hash.
    fn info(&self, config: &str) -> u64 {
        let hash = xxhash_rust::xxh64::xxh64(config.as_bytes(), 0);
        let series = format!("egress_config_info{{egress_config=\"{hash:016x}\",egress_plugin=\"egress-http\"}}");
        self.envoy.metric(&series)
    }

    fn registry_hosts(&self, config: &str) -> u64 {
        let hash = xxhash_rust::xxh64::xxh64(config.as_bytes(), 0);
        let series = format!("egress_registry_hosts{{egress_config=\"{hash:016x}\",egress_plugin=\"egress-http\"}}");
        self.envoy.metric(&series)
    }
}

fn status(port: u16, host: &str) -> u16 {
    client::exchange(port, DESTINATION, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).status
}

/// Replaces the file in one step, which is what Envoy watches for.
fn write_resource(file: &Path, plugin: &Value) {
    let resource = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "egress",
        "typed_config": plugin,
    }]});
    let part = file.with_extension("part");
    fs::write(&part, resource.to_string()).unwrap();
    fs::rename(&part, file).unwrap();
}

#[test]
fn updates_take_effect_without_a_failed_request() {
    let listing = |hosts: &[&str]| json!({"registry": [{"hosts": hosts}]});
    let first = listing(&["always.test", "old.test"]);
    let mesh = Mesh::start("egress-http", &first.to_string());
    mesh.wait_for("always.test", 200);
    assert_eq!((mesh.status("old.test"), mesh.status("new.test")), (200, 403));
    assert_eq!((mesh.info(&first.to_string()), mesh.registry_hosts(&first.to_string())), (1, 2));

    let stop = Arc::new(AtomicBool::new(false));
    let (port, stopped) = (mesh.port, Arc::clone(&stop));
    let load = thread::spawn(move || {
        let mut requests = 0;
        while !stopped.load(Ordering::SeqCst) {
            assert_eq!(status(port, "always.test"), 200, "after {requests} requests");
            requests += 1;
        }
        requests
    });

    let second = listing(&["always.test", "new.test", "*.new.test"]);
    mesh.push(&second);
    mesh.wait_for("new.test", 200);
    assert_eq!(mesh.status("old.test"), 403);
    assert_eq!((mesh.info(&first.to_string()), mesh.info(&second.to_string())), (0, 1));
    assert_eq!((mesh.registry_hosts(&first.to_string()), mesh.registry_hosts(&second.to_string())), (0, 3));

    // Refused as a whole: what is good in it does not count either, and every problem is in the log.
    mesh.push(&json!({"registry": [{"hosts": ["worse.test", "*bad.test"]}], "enforcment": "REPORT"}));
    mesh.envoy.wait("the refusal", || (mesh.refused() == 1).then_some(()));
    assert_eq!((mesh.status("new.test"), mesh.status("worse.test")), (200, 403));
    assert_eq!(mesh.info(&second.to_string()), 1);
    mesh.envoy.wait("the problems in the log", || {
        let log = mesh.envoy.log();
        let host = "registry[0].hosts[1]: \"*bad.test\": the wildcard must be a whole label; use \"*.bad.test\"";
        let field = "enforcment: unknown field; did you mean \"enforcement\"?";
        (log.contains(host) && log.contains(field)).then_some(())
    });

    mesh.push(&first);
    mesh.wait_for("old.test", 200);
    assert_eq!(mesh.status("new.test"), 403);
    assert_eq!((mesh.info(&first.to_string()), mesh.info(&second.to_string())), (1, 0));

    stop.store(true, Ordering::SeqCst);
    let requests = load.join().unwrap();
    assert!(requests > 20, "only {requests} requests were made meanwhile");
}

#[test]
fn a_bad_first_configuration_fails_closed_and_a_good_one_recovers() {
    let mesh = Mesh::start("egress-http", r#"{"registry": [{"hosts": ["*"]}]}"#);
    assert_eq!((mesh.status("listed.test"), mesh.status("other.test")), (500, 500));
    assert_eq!(mesh.refused(), 1);
    mesh.push(&json!({"registry": [{"hosts": ["listed.test"]}]}));
    mesh.wait_for("listed.test", 200);
    assert_eq!(mesh.status("other.test"), 403);
}

#[test]
fn a_misspelt_root_id_is_refused_by_name() {
    let mesh = Mesh::start("egress-htpp", "{}");
    assert_eq!(mesh.status("listed.test"), 500);
    mesh.envoy.wait("the error in the log", || {
        mesh.envoy.log().contains("pluginName (root_id) \"egress-htpp\" is unknown; use \"egress-http\" on HTTP, \"egress-tcp\" on TLS and TCP").then_some(())
    });
}

#[test]
fn an_empty_configuration_denies_all_that_is_outside() {
    let mesh = Mesh::start("egress-http", "");
    mesh.wait_for("listed.test", 403);
    assert_eq!(mesh.status("reviews.default.svc.cluster.local"), 200);
}

/// What a client gets back that asks for a host by TLS; empty where it is denied.
fn tls(port: u16, host: &str) -> Vec<u8> {
    let hello = client_hello(Some(host));
    let mut stream = client::connect(port, DESTINATION);
    let _ = stream.write_all(&hello);
    client::read_up_to(&mut stream, hello.len())
}

#[test]
fn updates_lose_no_connection_that_is_held_or_open() {
    let outside = Echo::start(b"");
    let listing = |hosts: &[&str]| json!({"registry": [{"hosts": hosts}], "tcp": {"inspectionTimeout": "10m"}});
    let mesh = Mesh::start_tcp(&listing(&["old.test"]), outside.address);
    let (old, new) = (client_hello(Some("old.test")), client_hello(Some("new.test")));
    mesh.envoy.wait("the first configuration", || (tls(mesh.port, "old.test") == old).then_some(()));

    let mut open = client::connect(mesh.port, DESTINATION);
    open.write_all(&old).unwrap();
    assert_eq!(client::read_up_to(&mut open, old.len()), old);
    mesh.envoy.wait("those that came before to end", || (outside.open() == 1).then_some(()));
    let mut held: Vec<_> = (0..100).map(|_| client::connect(mesh.port, DESTINATION)).collect();
    for stream in &mut held {
        stream.write_all(&old[..30]).unwrap();
    }
    mesh.envoy.wait("the held connections", || (outside.open() == 101).then_some(()));

    mesh.push(&listing(&["new.test"]));
    mesh.envoy.wait("the second configuration", || (tls(mesh.port, "new.test") == new).then_some(()));
    assert_eq!(tls(mesh.port, "old.test"), b"");
    // What was there before keeps the policy that it came under.
    for stream in &mut held {
        stream.write_all(&old[30..]).unwrap();
        assert_eq!(client::read_up_to(stream, old.len()), old);
    }
    open.write_all(b"still there").unwrap();
    assert_eq!(client::read_up_to(&mut open, 11), b"still there");

    mesh.push(&json!({"registry": [{"hosts": ["*"]}]}));
    mesh.envoy.wait("the refusal", || (mesh.refused() == 1).then_some(()));
    assert_eq!((tls(mesh.port, "new.test"), tls(mesh.port, "old.test")), (new, Vec::new()));
    drop((open, held));
    mesh.envoy.wait("no active connection", || {
        let active = mesh.envoy.metrics("egress_connections_active");
        (!active.is_empty() && active.iter().all(|(_, count)| *count == 0)).then_some(())
    });
}

/// The clock of a connection is that of the configuration that it came under, which Envoy no longer runs.
#[test]
fn time_is_up_for_silent_clients_after_an_update_too() {
    let outside = Echo::start(b"");
    let listing =
        |host: &str, timeout: &str| json!({"registry": [{"hosts": [host]}], "tcp": {"inspectionTimeout": timeout}});
    let mesh = Mesh::start_tcp(&listing("old.test", "2s"), outside.address);
    let (old, new) = (client_hello(Some("old.test")), client_hello(Some("new.test")));
    mesh.envoy.wait("the first configuration", || (tls(mesh.port, "old.test") == old).then_some(()));
    let silent: Vec<_> = (0..10).map(|_| client::connect(mesh.port, DESTINATION)).collect();
    mesh.push(&listing("new.test", "10m"));
    mesh.envoy.wait("the second configuration", || (tls(mesh.port, "new.test") == new).then_some(()));
    for mut stream in silent {
        assert_eq!(client::read_up_to(&mut stream, 1), b"");
    }
}

#[test]
fn a_bad_first_configuration_closes_connections_and_a_good_one_recovers() {
    let outside = Echo::start(b"");
    let mesh = Mesh::start_tcp(&json!({"registry": [{"hosts": ["*"]}]}), outside.address);
    assert_eq!(tls(mesh.port, "listed.test"), b"");
    assert_eq!((mesh.refused(), outside.connections()), (1, 0));
    mesh.push(&json!({"registry": [{"hosts": ["listed.test"]}]}));
    let hello = client_hello(Some("listed.test"));
    mesh.envoy.wait("the good configuration", || (tls(mesh.port, "listed.test") == hello).then_some(()));
    assert_eq!(tls(mesh.port, "other.test"), b"");
}

#[test]
fn both_plugins_run_in_one_envoy_each_with_its_own_configuration() {
    let upstream = Upstream::start();
    let folder = new_folder();
    let access_log = folder.join("access.log");
    let http_filter = sidecar::http_filter(&json!({"registry": [{"hosts": ["http.test"]}]}).to_string());
    let tcp_filter = sidecar::tcp_filter(&json!({"registry": [{"hosts": ["tcp.test"]}]}).to_string());
    let listeners = [
        sidecar::http_listener("http", MeshMode::AllowAny, &[http_filter], &access_log),
        TcpListener {
            name: "tcp",
            chain: CATCH_ALL,
            cluster: "PassthroughCluster",
            mode: ConnectMode::Immediate,
            filters: vec![tcp_filter],
            access_log: &access_log,
        }
        .build(),
    ];
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &listeners, upstream.address));
    let (http, tcp) = (envoy.port("http"), envoy.port("tcp"));
    assert_eq!((status(http, "http.test"), status(http, "tcp.test")), (200, 403));
    // The same requests on a connection that Envoy does not parse.
    assert_eq!(status(tcp, "tcp.test"), 200);
    let mut denied = client::connect(tcp, DESTINATION);
    denied.write_all(b"GET / HTTP/1.1\r\nHost: http.test\r\n\r\n").unwrap();
    assert_eq!(client::read_up_to(&mut denied, 1), b"");
    let series = |metric: &str, host: &str, verdict: &str, reason: &str| {
        envoy.metric(&format!(
            "{metric}{{egress_host=\"{host}\",egress_protocol=\"http\",egress_reason=\"{reason}\",\
             egress_verdict=\"{verdict}\"}}"
        ))
    };
    for (metric, host, verdict, reason) in [
        ("egress_requests_total", "http.test", "allowed", "listed"),
        ("egress_requests_total", "tcp.test", "denied", "not_listed"),
        ("egress_connections_total", "tcp.test", "allowed", "listed"),
        ("egress_connections_total", "http.test", "denied", "not_listed"),
    ] {
        assert_eq!(series(metric, host, verdict, reason), 1, "{metric} {host}");
    }
    let running = envoy.metrics("egress_config_info");
    assert_eq!(running.iter().filter(|(_, value)| *value == 1).count(), 2, "{running:?}");
}
