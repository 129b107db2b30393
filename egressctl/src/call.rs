//! One request or connection, as the policy is asked about it.
//!
//! Where it comes from differs: a URL on the command line, a line of an access log. What it is allowed is decided by the
//! filter's own code from here on.

use std::net::IpAddr;

use egress_filter::mesh::Route;
use egress_filter::policy::{Destination, KnownAttributes, Target, WireProtocol};

use crate::configuration::Plugin;

/// A request or connection, borrowing nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which plugin sees it: `egress-http` what Envoy parses as HTTP, `egress-tcp` all else.
    pub plugin: Plugin,
    /// What its bytes are.
    pub protocol: WireProtocol,
    /// Whom it names.
    pub target: Target<'static>,
    /// The address that the client connected to; `None` if it is not known, and then nothing that goes by address matches.
    pub address: Option<IpAddr>,
    /// The port that the client connected to; `None` if it is not known, and then no entry with ports matches.
    pub port: Option<u16>,
    /// The port that a CONNECT request asks for.
    pub connect_port: Option<u16>,
    /// Where Envoy sends it.
    pub route: RouteName,
    /// Whether Envoy chose that route by the name, see [`egress_filter::policy::Attributes::is_routed_by_name`].
    pub is_routed_by_name: bool,
}

/// A [`Route`] by the name that Envoy has for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteName {
    /// `xds.cluster_name`, such as `PassthroughCluster` or `outbound|443||api.example.com`.
    Cluster(String),
    /// A virtual host, where there is no cluster, such as `block_all`.
    VirtualHost(String),
}

impl RouteName {
    /// To the address that the client chose.
    #[must_use]
    pub fn passthrough() -> Self {
        RouteName::Cluster("PassthroughCluster".to_owned())
    }

    /// To a service that Istio knows.
    #[must_use]
    pub fn service(host: &str, port: u16) -> Self {
        RouteName::Cluster(format!("outbound|{port}||{host}"))
    }

    /// What the policy takes it for.
    #[must_use]
    pub fn route(&self) -> Route<'_> {
        match self {
            RouteName::Cluster(name) => Route::from_cluster(name),
            RouteName::VirtualHost(name) => Route::from_virtual_host(name),
        }
    }
}

impl Call {
    /// What is asked for.
    #[must_use]
    pub fn destination(&self) -> Destination<'_> {
        Destination { protocol: self.protocol, target: self.target.clone() }
    }

    /// What Envoy would know; `now` is in Unix seconds.
    #[must_use]
    pub fn attributes(&self, now: i64) -> KnownAttributes<'_> {
        KnownAttributes {
            address: self.address,
            port: self.port,
            connect_port: self.connect_port,
            route: self.route.route(),
            is_routed_by_name: self.is_routed_by_name,
            now,
        }
    }
}
