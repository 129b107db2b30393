//! The outbound side of a sidecar, as Istio configures it, in Envoy's JSON.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::envoy;

/// What Istio's registry makes of a host: a virtual host with a route to a cluster. The same table configures Envoy and
/// tells the native tests what Envoy would say.
pub const ROUTES: [(&str, RouteTo); 6] = [
    ("reviews.default.svc.cluster.local", RouteTo::Cluster("outbound|9080||reviews.default.svc.cluster.local")),
    ("weighted.default.svc.cluster.local", RouteTo::Cluster("outbound|9080|v2|weighted.default.svc.cluster.local")),
    ("registered.test", RouteTo::Cluster("outbound|80||registered.test")),
    ("by-gateway.test", RouteTo::Cluster("outbound|80||istio-egressgateway.istio-system.svc.cluster.local")),
    ("moved.default.svc.cluster.local", RouteTo::Redirect),
    ("moved.test", RouteTo::Redirect),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTo {
    Cluster(&'static str),
    Redirect,
}

/// The mesh's own policy for what it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MeshMode {
    #[default]
    AllowAny,
    RegistryOnly,
}

/// What Envoy does with a host.
pub fn route_to(host: &str) -> Option<RouteTo> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    ROUTES.iter().find(|(name, _)| *name == host).map(|(_, to)| *to)
}

/// A bootstrap with listeners; every cluster leads to `upstream`.
pub fn bootstrap(node: &Value, listeners: &[Value], upstream: SocketAddr) -> Value {
    let mut clusters = vec![cluster("PassthroughCluster", upstream), cluster_without_endpoints("BlackHoleCluster")];
    clusters.extend(ROUTES.iter().filter_map(|(_, to)| match to {
        RouteTo::Cluster(name) => Some(cluster(name, upstream)),
        RouteTo::Redirect => None,
    }));
    json!({
        "node": {"id": "sidecar~10.0.0.1~test.shop~shop.svc.cluster.local", "cluster": "test", "metadata": node},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "stats_config": {"stats_tags": stats_tags()},
    })
}

/// What Istio makes of `extraStatTags`.
pub fn stats_tags() -> Vec<Value> {
    let tag = |label: &&str| json!({"tag_name": label, "regex": format!("({label}=\\.=(.*?);\\.;)")});
    egress_filter::metrics::LABELS.iter().map(tag).collect()
}

fn cluster(name: &str, to: SocketAddr) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(to)}}]}]},
    })
}

fn cluster_without_endpoints(name: &str) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "5s"})
}

pub fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// The filter as an HTTP filter, its configuration given in place.
pub fn http_filter(config: &str) -> Value {
    json!({"name": "egress-http", "typed_config": plugin("egress-http", config)})
}

/// The plugin with a root id and a configuration.
pub fn plugin(root_id: &str, config: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
        "config": {
            "name": root_id,
            "root_id": root_id,
            "failure_policy": "FAIL_RELOAD",
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": envoy::wasm()}},
            },
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": config},
        },
    })
}

/// The filter as a network filter, its configuration given in place.
pub fn tcp_filter(config: &str) -> Value {
    json!({"name": "egress-tcp", "typed_config": network_plugin("egress-tcp", config)})
}

/// The plugin as a network filter.
pub fn network_plugin(root_id: &str, config: &str) -> Value {
    let mut plugin = plugin(root_id, config);
    plugin["@type"] = json!("type.googleapis.com/envoy.extensions.filters.network.wasm.v3.Wasm");
    plugin
}

/// How `tcp_proxy` behaves, and what runs before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectMode {
    /// Connects upstream at once, reads when connected.
    Immediate,
    /// The same behind a `tls_inspector`.
    TlsInspector,
    /// Reads at once, connects when data is let through: Envoy 1.37 and later.
    OnDownstreamData,
}

impl ConnectMode {
    /// Those in which the client is read whatever the upstream does, or is read when that is connected, as far as this
    /// Envoy has them.
    pub fn basic() -> Vec<ConnectMode> {
        let mut modes = vec![ConnectMode::Immediate];
        modes.extend(Self::lazy());
        modes
    }

    /// [`ConnectMode::OnDownstreamData`], if this Envoy has it.
    pub fn lazy() -> Option<ConnectMode> {
        envoy::Envoy::has_on_downstream_data().then_some(ConnectMode::OnDownstreamData)
    }
}

/// Istio's chain for what no listener knows.
pub const CATCH_ALL: &str = "virtualOutbound-catchall-tcp";

/// An outbound TCP listener on a free port, in the shape of one of Istio's: `chain` is empty for a service's own.
pub struct TcpListener<'a> {
    pub name: &'a str,
    pub chain: &'a str,
    pub cluster: &'a str,
    pub mode: ConnectMode,
    pub filters: Vec<Value>,
    pub access_log: &'a Path,
}

impl TcpListener<'_> {
    pub fn build(&self) -> Value {
        let mut proxy = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": self.name,
            "cluster": self.cluster,
            "access_log": [access_log_of_connections_to(self.access_log)],
        });
        if self.mode == ConnectMode::OnDownstreamData {
            proxy["upstream_connect_mode"] = json!("ON_DOWNSTREAM_DATA");
            proxy["max_early_data_bytes"] = json!(65536);
        }
        let mut filters = self.filters.clone();
        filters.push(json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}));
        let mut listener = listener(self.name, json!([{"name": self.chain, "filters": filters}]));
        if self.mode == ConnectMode::TlsInspector {
            listener["listener_filters"].as_array_mut().unwrap().push(json!({
                "name": "envoy.filters.listener.tls_inspector",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
            }));
            listener["continue_on_listener_filters_timeout"] = json!(true);
            listener["listener_filters_timeout"] = json!("0.1s");
        }
        listener
    }
}

/// An outbound listener on a free port that takes the original destination from a PROXY header.
fn listener(name: &str, filter_chains: Value) -> Value {
    json!({
        "name": name,
        "traffic_direction": "OUTBOUND",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [{
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
        }],
        "filter_chains": filter_chains,
    })
}

/// An outbound HTTP listener on a free port: takes the original destination from a PROXY header, routes as Istio would.
pub fn http_listener(name: &str, mesh: MeshMode, filters: &[Value], access_log: &Path) -> Value {
    outbound_listener(
        name,
        filters,
        json!({
            "http_protocol_options": {"accept_http_10": true},
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "delayed_close_timeout": "0.1s",
            "route_config": route_config(mesh),
            "access_log": [access_log_to(access_log)],
        }),
    )
}

/// An outbound HTTP listener with these filters before the router, and these other fields of its connection manager.
pub fn outbound_listener(name: &str, filters: &[Value], fields: Value) -> Value {
    let mut http_filters = filters.to_vec();
    http_filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }));
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http_filters": http_filters,
    });
    manager.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    listener(name, json!([{"filters": [filter]}]))
}

fn route_config(mesh: MeshMode) -> Value {
    let mut hosts: Vec<Value> = ROUTES.iter().map(|(host, to)| virtual_host(host, *to)).collect();
    hosts.push(match mesh {
        MeshMode::AllowAny => json!({
            "name": "allow_any", "domains": ["*"],
            "routes": [{"name": "allow_any", "match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}],
        }),
        MeshMode::RegistryOnly => json!({
            "name": "block_all", "domains": ["*"],
            "routes": [{"name": "block_all", "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
        }),
    });
    json!({"name": "80", "ignore_port_in_host_matching": true, "virtual_hosts": hosts})
}

fn virtual_host(host: &str, to: RouteTo) -> Value {
    let action = match to {
        RouteTo::Cluster(cluster) => json!({"route": {"cluster": cluster}}),
        RouteTo::Redirect => json!({"redirect": {"host_redirect": "elsewhere.test"}}),
    };
    let mut route = json!({"match": {"prefix": "/"}});
    route.as_object_mut().unwrap().extend(action.as_object().unwrap().clone());
    json!({"name": format!("{host}:80"), "domains": [host, format!("{host}.")], "routes": [route]})
}

/// One JSON line a request: the case, and what the filter left.
pub fn access_log_to(path: &Path) -> Value {
    access_log(
        path,
        json!({
            "case": "%REQ(X-CASE)%",
            "code": "%RESPONSE_CODE%",
            "details": "%RESPONSE_CODE_DETAILS%",
        }),
    )
}

/// One JSON line a connection: the address that the client came from, and what the filter left.
fn access_log_of_connections_to(path: &Path) -> Value {
    access_log(
        path,
        json!({
            "source": "%DOWNSTREAM_REMOTE_ADDRESS%",
            "flags": "%RESPONSE_FLAGS%",
            "sni": "%REQUESTED_SERVER_NAME%",
        }),
    )
}

fn access_log(path: &Path, fields: Value) -> Value {
    let mut format = json!({
        "verdict": "%FILTER_STATE(wasm.egress_verdict:PLAIN)%",
        "reason": "%FILTER_STATE(wasm.egress_reason:PLAIN)%",
        "host": "%FILTER_STATE(wasm.egress_host:PLAIN)%",
        "upstream": "%UPSTREAM_CLUSTER%",
        "sent_upstream": "%UPSTREAM_WIRE_BYTES_SENT%",
    });
    format.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": format},
        },
    })
}
