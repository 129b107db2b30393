//! Configuration updates in a running Envoy: a new list takes effect, a bad one is refused and the last good one goes on,
//! and no request fails meanwhile.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use support::client;
use support::envoy::{Envoy, new_folder};
use support::sidecar::{self, MeshMode};
use support::upstream::Upstream;

const DESTINATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

/// An Envoy whose filter configuration comes by xDS (ECDS) from a file, as it comes from istiod.
struct Mesh {
    envoy: Envoy,
    port: u16,
    file: PathBuf,
}

impl Mesh {
    fn start(root_id: &str, config: &str) -> Mesh {
        let upstream = Upstream::start();
        let folder = new_folder();
        let file = folder.join("ecds.json");
        write_resource(&file, root_id, config);
        let filter = json!({
            "name": "egress-http",
            "config_discovery": {
                "config_source": {"path_config_source": {"path": file}, "resource_api_version": "V3"},
                "type_urls": ["type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm"],
            },
        });
        let listener = sidecar::http_listener("http", MeshMode::AllowAny, &[filter], &folder.join("access.log"));
        let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &[listener], upstream.address));
        let port = envoy.port("http");
        Mesh { envoy, port, file }
    }

    fn push(&self, config: &Value) {
        write_resource(&self.file, "egress-http", &config.to_string());
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
fn write_resource(file: &Path, root_id: &str, config: &str) {
    let resource = json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        "name": "egress-http",
        "typed_config": sidecar::plugin(root_id, config),
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
        mesh.envoy.log().contains("pluginName (root_id) \"egress-htpp\" is unknown; use \"egress-http\"").then_some(())
    });
}

#[test]
fn an_empty_configuration_denies_all_that_is_outside() {
    let mesh = Mesh::start("egress-http", "");
    mesh.wait_for("listed.test", 403);
    assert_eq!(mesh.status("reviews.default.svc.cluster.local"), 200);
}
