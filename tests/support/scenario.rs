//! Scenarios as data: a configuration, and what each of some destinations gets. `tests/scenarios.rs` asks the policy;
//! `tests/envoy_http.rs` sends the requests through Envoy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;

use egress_filter::config::KnownNode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sidecar::MeshMode;

/// One file: a theme.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenarios: Vec<Scenario>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub name: String,
    /// The plugin configuration.
    pub config: Value,
    #[serde(default)]
    pub node: Node,
    /// Istio's own policy for unknown hosts.
    #[serde(default)]
    pub mesh: MeshMode,
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub namespace: Option<String>,
    pub workload: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One destination: `host` over HTTP or gRPC, `sni` over TLS, or neither over TCP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub host: Option<String>,
    #[serde(default)]
    pub grpc: bool,
    pub sni: Option<String>,
    #[serde(default)]
    pub tcp: bool,
    /// Where the client connects to.
    #[serde(default = "somewhere")]
    pub to: SocketAddr,
    /// Verdict, reason, and the host label.
    pub expect: String,
}

fn somewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 10], 80))
}

impl Case {
    pub fn is_http(&self) -> bool {
        self.host.is_some()
    }

    /// Verdict, reason, host.
    pub fn expected(&self) -> [&str; 3] {
        let parts: Vec<&str> = self.expect.split_whitespace().collect();
        parts.try_into().unwrap_or_else(|_| panic!("not `verdict reason host`: {:?}", self.expect))
    }
}

impl Node {
    pub fn known(&self) -> KnownNode {
        KnownNode { namespace: self.namespace.clone(), workload: self.workload.clone(), labels: self.labels.clone() }
    }

    /// As Istio's agent tells it to Envoy.
    pub fn metadata(&self) -> Value {
        json!({"NAMESPACE": self.namespace, "WORKLOAD_NAME": self.workload, "LABELS": self.labels})
    }
}

/// Every scenario, with `theme: name` as its name.
pub fn all() -> Vec<Scenario> {
    let folder = super::envoy::repository().join("tests/scenarios");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut scenarios = Vec::new();
    for path in files {
        let theme = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let file: File = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        scenarios.extend(file.scenarios.into_iter().map(|scenario| {
            let name = format!("{theme}: {}", scenario.name);
            Scenario { name, ..scenario }
        }));
    }
    scenarios
}
