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
    let mut clusters = vec![cluster("PassthroughCluster", upstream)];
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
    json!({
        "name": name,
        "traffic_direction": "OUTBOUND",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "listener_filters": [{
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
        }],
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    })
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
    json!({
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": {
                "case": "%REQ(X-CASE)%",
                "code": "%RESPONSE_CODE%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "verdict": "%FILTER_STATE(wasm.egress_verdict:PLAIN)%",
                "reason": "%FILTER_STATE(wasm.egress_reason:PLAIN)%",
                "host": "%FILTER_STATE(wasm.egress_host:PLAIN)%",
                "upstream": "%UPSTREAM_CLUSTER%",
                "sent_upstream": "%UPSTREAM_WIRE_BYTES_SENT%",
            }},
        },
    })
}
