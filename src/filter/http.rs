//! `egress-http`: decides each request on its headers, before anything of it goes upstream.

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::abi::Action;
use super::host::{self, MetricKind};
use super::plugin::{Plugin, is_plain};
use super::vm;
use crate::mesh::Route;
use crate::metrics;
use crate::name::Authority;
use crate::policy::{Attributes, Destination, Target, WireProtocol};

pub(super) struct HttpStream {
    plugin: Rc<Plugin>,
    /// The host that the response is counted under, if responses are counted.
    response_label: Option<String>,
}

impl HttpStream {
    pub(super) fn new(plugin: Rc<Plugin>) -> Self {
        HttpStream { plugin, response_label: None }
    }

    pub(super) fn on_request_headers(&mut self, end_of_stream: bool) -> Action {
        let authority = host::request_header(":authority").unwrap_or_default();
        let parsed = Authority::from_wire(&authority);
        let attributes = RequestAttributes::new(parsed.as_ref().ok().and_then(|authority| authority.port));
        let target = Target::from(parsed.map(|authority| authority.host));
        let destination = Destination { protocol: WireProtocol::Http, target };
        let decision = self.plugin.policy().decide(&destination, &attributes);
        let is_plain = is_plain(decision.reason);
        let protocol = protocol(end_of_stream && is_plain);
        if self.plugin.policy().metrics().responses {
            self.response_label = Some(self.plugin.label(decision.counted));
        }
        self.plugin.count(&decision, protocol, self.response_label.as_deref());
        if is_plain {
            return Action::Continue;
        }
        let port = attributes.connect_port().or_else(|| attributes.port());
        self.plugin.report(&decision, &destination, port);
        if !decision.is_denied() {
            return Action::Continue;
        }
        let reason = decision.reason.as_str();
        let headers = [("x-egress-denied", reason), ("content-type", "text/plain")];
        let line = self.plugin.policy().denial(&destination, port, decision.reason);
        // Envoy makes the body a header of a gRPC reply, where a line end has no place.
        let end = if protocol == WireProtocol::Grpc { "" } else { "\n" };
        host::deny_request(&format!("egress_denied_{reason}"), &headers, &format!("egress denied: {line}{end}"));
        Action::Pause
    }
}

impl Drop for HttpStream {
    /// Counts the response. Envoy deletes the stream's context when its access log is written, so the response is known.
    fn drop(&mut self) {
        let Some(label) = self.response_label.take() else {
            return;
        };
        let class = match host::number_property("response\0code") {
            Some(100..200) => "1xx",
            Some(200..300) => "2xx",
            Some(300..400) => "3xx",
            Some(400..500) => "4xx",
            Some(500..600) => "5xx",
            _ => "0xx",
        };
        vm::increment(metrics::responses(&label, class));
        if let Some(nanoseconds) = host::number_property("request\0duration")
            && let Some(id) = vm::metric(MetricKind::Histogram, metrics::response_duration(&label))
        {
            host::record(id, u64::try_from(nanoseconds / 1_000_000).unwrap_or(0));
        }
    }
}

/// Tells gRPC by its content type, as Envoy does: `application/grpc` and `application/grpc+...`, not grpc-web.
///
/// A request that ends with its headers is none: a gRPC client that has nothing to send sends an empty DATA frame (gRPC
/// over HTTP/2, "Requests"). So the most common requests do without reading a header; `surely_http` says that.
fn protocol(surely_http: bool) -> WireProtocol {
    if surely_http {
        return WireProtocol::Http;
    }
    let content_type = host::request_header("content-type").unwrap_or_default();
    match content_type.strip_prefix(b"application/grpc") {
        Some([] | [b'+', ..]) => WireProtocol::Grpc,
        _ => WireProtocol::Http,
    }
}

/// What Envoy knows of a request, each asked at most once.
struct RequestAttributes {
    authority_port: Option<u16>,
    destination: OnceCell<Option<SocketAddr>>,
    route: OnceCell<RouteName>,
    connect_port: OnceCell<Option<u16>>,
}

enum RouteName {
    Cluster(String),
    VirtualHost(String),
    None,
}

impl RequestAttributes {
    fn new(authority_port: Option<u16>) -> Self {
        RequestAttributes {
            authority_port,
            destination: OnceCell::new(),
            route: OnceCell::new(),
            connect_port: OnceCell::new(),
        }
    }

    fn destination(&self) -> Option<SocketAddr> {
        *self.destination.get_or_init(host::destination)
    }
}

impl Attributes for RequestAttributes {
    fn address(&self) -> Option<IpAddr> {
        self.destination().map(|address| address.ip().to_canonical())
    }

    fn port(&self) -> Option<u16> {
        self.destination().map(|address| address.port())
    }

    /// Only an authority with a port can be that of a CONNECT request (RFC 9110, section 9.3.6), so only then is it worth
    /// asking for the method.
    fn connect_port(&self) -> Option<u16> {
        self.authority_port?;
        *self.connect_port.get_or_init(|| {
            let is_connect = host::request_header(":method").is_some_and(|method| method == b"CONNECT");
            self.authority_port.filter(|_| is_connect)
        })
    }

    fn route(&self) -> Route<'_> {
        let name = self.route.get_or_init(|| match host::text_property("xds\0cluster_name") {
            Some(cluster) => RouteName::Cluster(cluster),
            None => host::text_property("xds\0virtual_host_name").map_or(RouteName::None, RouteName::VirtualHost),
        });
        match name {
            RouteName::Cluster(name) => Route::from_cluster(name),
            RouteName::VirtualHost(name) => Route::from_virtual_host(name),
            RouteName::None => Route::External,
        }
    }

    fn is_routed_by_name(&self) -> bool {
        true
    }

    fn now(&self) -> i64 {
        host::unix_seconds()
    }
}
