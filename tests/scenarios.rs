//! Asks the policy about every destination of `tests/scenarios`.

mod support;

use egress_filter::mesh::Route;
use egress_filter::name::{Authority, Host, InvalidName};
use egress_filter::policy::{Destination, KnownAttributes, Policy, Target, Unnamed, WireProtocol};
use support::scenario::{self, Case};
use support::sidecar::{MeshMode, RouteTo, route_to};

#[test]
fn the_policy_decides_every_scenario_as_expected() {
    let mut cases = 0;
    let mut wrong = Vec::new();
    for scenario in scenario::all() {
        let json = serde_json::to_vec(&scenario.config).unwrap();
        let policy = Policy::from_json(&json, &scenario.node.known())
            .unwrap_or_else(|invalid| panic!("{}: {invalid}", scenario.name));
        for case in &scenario.cases {
            cases += 1;
            let found = decide(&policy, scenario.mesh, case);
            if found != case.expected() {
                wrong.push(format!("{}: {case:?}\n  found {}", scenario.name, found.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {cases} cases:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases > 100, "only {cases} cases were found");
}

fn decide(policy: &Policy, mesh: MeshMode, case: &Case) -> [String; 3] {
    let (protocol, target) = match (&case.host, &case.sni) {
        (Some(host), _) => {
            let protocol = if case.grpc { WireProtocol::Grpc } else { WireProtocol::Http };
            (protocol, Target::from(Authority::from_wire(host.as_bytes()).map(|authority| authority.host)))
        }
        (None, Some(sni)) if sni.is_empty() => (WireProtocol::Tls, Target::Unnamed(Unnamed::NoSni)),
        (None, Some(sni)) => (WireProtocol::Tls, Target::from(sni_host(sni))),
        (None, None) => {
            assert!(case.tcp, "neither host nor sni nor tcp: {case:?}");
            (WireProtocol::Tcp, Target::Unnamed(Unnamed::Opaque))
        }
    };
    let destination = Destination { protocol, target };
    let host = case.host.as_deref().map(|host| host.rsplit_once(':').map_or(host, |(host, _)| host));
    let route = match (host.and_then(route_to), host) {
        (Some(RouteTo::Cluster(cluster)), _) => Route::from_cluster(cluster),
        (Some(RouteTo::Redirect), Some(host)) => Route::from_virtual_host(host),
        _ => match mesh {
            MeshMode::AllowAny => Route::from_cluster("PassthroughCluster"),
            MeshMode::RegistryOnly => Route::from_virtual_host("block_all"),
        },
    };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let attributes = KnownAttributes {
        address: Some(case.to.ip()),
        port: Some(case.to.port()),
        route,
        is_routed_by_name: case.is_http(),
        connect_port: None,
        now: i64::try_from(now).unwrap(),
    };
    let decision = policy.decide(&destination, &attributes);
    [
        decision.verdict.as_str().to_owned(),
        decision.reason.as_str().to_owned(),
        policy.host_label(decision.counted).to_string(),
    ]
}

/// An SNI that is an IP literal is no name (RFC 6066, section 3).
fn sni_host(sni: &str) -> Result<Host<'_>, InvalidName> {
    match Host::from_wire(sni.as_bytes())? {
        Host::Ip(_) => Err(InvalidName::IpLiteral),
        name => Ok(name),
    }
}
