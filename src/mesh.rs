//! What belongs to the mesh: the domains and addresses inside it, and what Envoy's routes say about a destination.

use std::net::IpAddr;

use crate::address::CidrTable;
use crate::name::HostName;

/// Where Envoy would send a request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `PassthroughCluster`: to the address that the client chose.
    Passthrough,
    /// To the host of a service that Istio knows.
    Service(&'a str),
    /// Nowhere that Envoy names: `BlackHoleCluster`, the `block_all` virtual host, CONNECT, a cluster that Istio did not
    /// make.
    External,
    /// Envoy has not said yet: a connection whose upstream is not chosen.
    Unknown,
}

impl<'a> Route<'a> {
    /// Reads `xds.cluster_name`. Istio's clusters for services are `outbound|PORT|SUBSET|HOST`.
    #[must_use]
    pub fn from_cluster(name: &'a str) -> Self {
        if name == "PassthroughCluster" {
            return Route::Passthrough;
        }
        let mut parts = name.split('|');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("outbound"), Some(_), Some(_), Some(host), None) if !host.is_empty() => Route::Service(host),
            _ => Route::External,
        }
    }

    /// Reads `xds.filter_chain_name` of a TCP connection, for which no cluster is known yet.
    ///
    /// Istio's catch-all chains connect to the address that the client chose, or nowhere. The chains of services have no
    /// name.
    #[must_use]
    pub fn from_filter_chain(name: &str) -> Self {
        match name {
            "PassthroughFilterChain" | "virtualOutbound-catchall-tcp" => Route::Passthrough,
            "virtualOutbound-blackhole" => Route::External,
            _ => Route::Unknown,
        }
    }

    /// Reads `xds.virtual_host_name`, which decides where a route has no cluster: redirects and direct responses. Istio's
    /// virtual hosts are `HOST:PORT`; `block_all` and `allow_any` are its catch-alls.
    #[must_use]
    pub fn from_virtual_host(name: &'a str) -> Self {
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        match host {
            "" | "block_all" | "allow_any" => Route::External,
            host => Route::Service(host),
        }
    }
}

/// The `mesh` part of the configuration.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) domains: Vec<HostName<'static>>,
    pub(crate) addresses: CidrTable,
    pub(crate) egress_gateways: Vec<HostName<'static>>,
    pub(crate) trust_registry: bool,
}

/// What a route says about a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteClass<'a> {
    Internal,
    /// A service that Istio knows, and `trustRegistry` is on.
    Trusted(&'a str),
    External,
}

impl Mesh {
    /// Whether a route to this host is inside the mesh: it is one of `mesh.domains` or below one, and no egress gateway.
    #[must_use]
    pub fn is_internal(&self, host: &str) -> bool {
        self.classify(Route::Service(host)) == RouteClass::Internal
    }

    pub(crate) fn classify<'a>(&self, route: Route<'a>) -> RouteClass<'a> {
        let Route::Service(host) = route else {
            return RouteClass::External;
        };
        let name = HostName::from_wire(host.as_bytes()).ok();
        let leads_outside = name.as_ref().is_some_and(|name| self.egress_gateways.contains(name));
        if leads_outside {
            return RouteClass::External;
        }
        if name.is_some_and(|name| self.domains.iter().any(|domain| name.is_within(domain))) {
            return RouteClass::Internal;
        }
        if self.trust_registry { RouteClass::Trusted(host) } else { RouteClass::External }
    }

    pub(crate) fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    pub(crate) fn holds(&self, address: IpAddr) -> bool {
        self.addresses.contains(address)
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Mesh {
            domains: HostName::from_config("cluster.local").into_iter().collect(),
            addresses: CidrTable::default(),
            egress_gateways: Vec::new(),
            trust_registry: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_clusters_that_istio_makes() {
        for (name, expected) in [
            ("PassthroughCluster", Route::Passthrough),
            ("BlackHoleCluster", Route::External),
            ("outbound|9080||reviews.default.svc.cluster.local", Route::Service("reviews.default.svc.cluster.local")),
            ("outbound|443|v1|api.example.com", Route::Service("api.example.com")),
            ("outbound|443||*.example.com", Route::Service("*.example.com")),
            ("outbound|443||", Route::External),
            ("outbound|443|", Route::External),
            ("outbound|443||a|b", Route::External),
            ("inbound|9080||", Route::External),
            ("prometheus_stats", Route::External),
            ("", Route::External),
        ] {
            assert_eq!(Route::from_cluster(name), expected, "{name}");
        }
    }

    #[test]
    fn reads_the_filter_chains_that_istio_makes() {
        for (name, expected) in [
            ("PassthroughFilterChain", Route::Passthrough),
            ("virtualOutbound-catchall-tcp", Route::Passthrough),
            ("virtualOutbound-blackhole", Route::External),
            ("", Route::Unknown),
            ("0.0.0.0_443", Route::Unknown),
        ] {
            assert_eq!(Route::from_filter_chain(name), expected, "{name}");
        }
    }

    #[test]
    fn reads_the_virtual_hosts_that_istio_makes() {
        for (name, expected) in [
            ("block_all", Route::External),
            ("allow_any", Route::External),
            ("", Route::External),
            ("reviews.default.svc.cluster.local:9080", Route::Service("reviews.default.svc.cluster.local")),
            ("reviews.default.svc.cluster.local", Route::Service("reviews.default.svc.cluster.local")),
        ] {
            assert_eq!(Route::from_virtual_host(name), expected, "{name}");
        }
    }
}
