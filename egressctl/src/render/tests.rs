//! Random meshes: what is rendered lists for each sidecar what a second, plainer reading of the same objects says it sees.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use clap::Parser;
use egress_filter::config::KnownNode;
use egress_filter::mesh::Route;
use egress_filter::name::HostName;
use egress_filter::policy::{Destination, KnownAttributes, Mode, Policy, Reason, Target, WireProtocol};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::Document;

#[derive(Debug, Parser)]
struct Only {
    #[command(flatten)]
    render: RenderArgs,
}

fn args(words: &[&str]) -> RenderArgs {
    Only::try_parse_from(["render", "-f", "-", "--root-namespace", "root"].iter().chain(words)).unwrap().render
}

fn documents(objects: &[Value]) -> Vec<Document> {
    objects.iter().map(|object| Document::from_cluster("test", object.clone())).collect()
}

fn render(args: &RenderArgs, given: &[Value]) -> (Value, Vec<String>) {
    let documents = documents(given);
    let mut findings = Findings::default();
    let (config, _) = args.render(&objects(&documents), &mut findings).unwrap();
    (config, findings.into_warnings().iter().map(ToString::to_string).collect())
}

const NAMESPACES: [&str; 4] = ["a", "b", "c", "root"];
const HOSTS: [&str; 5] = ["x.test.example", "y.test.example", "*.test.example", "*.w.test.example", "z.example"];
/// What is asked for, and which of [`HOSTS`] name it.
const PROBES: [(&str, &[usize]); 6] = [
    ("x.test.example", &[0, 2]),
    ("y.test.example", &[1, 2]),
    ("q.test.example", &[2]),
    ("q.w.test.example", &[2, 3]),
    ("z.example", &[4]),
    ("nobody.example", &[]),
];
const PORTS: [(u16, &str, WireProtocol); 3] =
    [(80, "HTTP", WireProtocol::Http), (443, "TLS", WireProtocol::Tls), (8443, "HTTPS", WireProtocol::Tls)];

#[derive(Clone, Debug)]
struct Entry {
    namespace: usize,
    hosts: Vec<usize>,
    ports: Vec<usize>,
    export_to: Vec<&'static str>,
}

#[derive(Clone, Debug)]
struct Listener {
    port: Option<usize>,
    /// Namespace (`!` before it: takes away) and name.
    hosts: Vec<(&'static str, &'static str)>,
}

#[derive(Clone, Debug)]
struct SidecarSpec {
    namespace: usize,
    label: Option<&'static str>,
    mode: Option<&'static str>,
    listeners: Vec<Listener>,
}

#[derive(Clone, Debug)]
struct MeshSpec {
    entries: Vec<Entry>,
    sidecars: Vec<SidecarSpec>,
}

impl MeshSpec {
    fn objects(&self) -> Vec<Value> {
        let mut objects = Vec::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let hosts: Vec<&str> = entry.hosts.iter().map(|&host| HOSTS[host]).collect();
            let port =
                |&port: &usize| json!({"number": PORTS[port].0, "name": format!("p{port}"), "protocol": PORTS[port].1});
            objects.push(json!({
                "kind": "ServiceEntry",
                "metadata": {"name": format!("e{number}"), "namespace": NAMESPACES[entry.namespace]},
                "spec": {
                    "hosts": hosts,
                    "ports": entry.ports.iter().map(port).collect::<Vec<_>>(),
                    "exportTo": entry.export_to,
                },
            }));
        }
        for (number, sidecar) in self.sidecars.iter().enumerate() {
            let mut egress = Vec::new();
            for listener in &sidecar.listeners {
                let host = |(namespace, name): &(&str, &str)| format!("{}/{name}", namespace.replace('!', "~"));
                let mut fields = json!({"hosts": listener.hosts.iter().map(host).collect::<Vec<_>>()});
                if let Some(port) = listener.port {
                    fields["port"] = json!({"number": PORTS[port].0, "protocol": PORTS[port].1});
                }
                egress.push(fields);
            }
            let mut spec = json!({"egress": egress});
            if let Some(label) = sidecar.label {
                spec["workloadSelector"] = json!({"labels": {"app": label}});
            }
            if let Some(mode) = sidecar.mode {
                spec["outboundTrafficPolicy"] = json!({"mode": mode});
            }
            objects.push(json!({
                "kind": "Sidecar",
                "metadata": {"name": format!("s{number:02}"), "namespace": NAMESPACES[sidecar.namespace]},
                "spec": spec,
            }));
        }
        objects
    }

    /// The Sidecar of the workloads of a namespace with this label or without one.
    fn sidecar(&self, namespace: &str, label: Option<&str>) -> Option<&SidecarSpec> {
        let of = |namespace: &str, label: Option<&str>| {
            self.sidecars.iter().find(|s| NAMESPACES[s.namespace] == namespace && s.label == label)
        };
        let own = label.and_then(|label| of(namespace, Some(label))).or_else(|| of(namespace, None));
        own.or_else(|| of("root", None))
    }

    fn mode(&self, namespace: &str, label: Option<&str>) -> Mode {
        let allows_any = |sidecar: &SidecarSpec| sidecar.mode == Some("ALLOW_ANY");
        if self.sidecar(namespace, label).is_some_and(allows_any) { Mode::AllowAny } else { Mode::RegistryOnly }
    }

    /// Whether these workloads see `probe` on a port.
    fn sees(&self, namespace: &str, label: Option<&str>, probe: usize, port: usize) -> bool {
        let sidecar = self.sidecar(namespace, label);
        self.entries.iter().any(|entry| {
            let home = NAMESPACES[entry.namespace];
            let exported = match entry.export_to.as_slice() {
                [] | ["*"] => true,
                targets => targets.iter().any(|&to| to == namespace || (to == "." && home == namespace)),
            };
            let imported = |host: usize| match sidecar {
                Some(sidecar) if !sidecar.listeners.is_empty() => {
                    let on_port = sidecar.listeners.iter().find(|listener| listener.port == Some(port));
                    let listener = on_port.or(sidecar.listeners.iter().find(|listener| listener.port.is_none()));
                    listener.is_some_and(|listener| imports(listener, namespace, home, HOSTS[host]))
                }
                _ => true,
            };
            exported
                && entry.ports.contains(&port)
                && entry.hosts.iter().any(|host| PROBES[probe].1.contains(host) && imported(*host))
        })
    }
}

fn imports(listener: &Listener, own: &str, home: &str, host: &str) -> bool {
    let mut included = false;
    for (namespace, name) in &listener.hosts {
        let wanted = namespace.trim_start_matches('!');
        let in_namespace = wanted == "*" || wanted == home || (wanted == "." && own == home);
        let covers = *name == host || name.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix));
        if in_namespace && covers {
            if namespace.starts_with('!') {
                return false;
            }
            included = true;
        }
    }
    included
}

fn is_listed(policy: &Policy, probe: usize, port: usize) -> bool {
    let (number, _, protocol) = PORTS[port];
    let name = HostName::from_wire(PROBES[probe].0.as_bytes()).unwrap();
    let attributes = KnownAttributes {
        address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        port: Some(number),
        connect_port: None,
        route: Route::Passthrough,
        is_routed_by_name: false,
        now: 0,
    };
    let destination = Destination { protocol, target: Target::Name(name) };
    policy.decide(&destination, &attributes).reason == Reason::Listed
}

fn policy(config: &Value, namespace: &str, label: Option<&str>) -> Policy {
    let labels: BTreeMap<String, String> = label.iter().map(|app| ("app".to_owned(), (*app).to_owned())).collect();
    let node = KnownNode { namespace: Some(namespace.to_owned()), workload: None, labels };
    Policy::from_json(config.to_string().as_bytes(), &node).unwrap()
}

fn export_to() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        2 => Just(vec![]),
        2 => Just(vec!["*"]),
        1 => Just(vec!["."]),
        1 => Just(vec!["~"]),
        1 => Just(vec!["a", "b"]),
        1 => Just(vec!["a", "b", "c", "root"]),
        1 => Just(vec![".", "c"]),
    ]
}

fn some_of(count: usize) -> impl Strategy<Value = Vec<usize>> {
    proptest::sample::subsequence((0..count).collect::<Vec<_>>(), 1..=count)
}

fn listener() -> impl Strategy<Value = Listener> {
    let namespace = prop_oneof![
        3 => proptest::sample::select(vec!["*", ".", "a", "b", "c"]),
        1 => proptest::sample::select(vec!["!*", "!.", "!a"]),
    ];
    let name =
        proptest::sample::select(vec!["*", "*", "x.test.example", "*.test.example", "*.w.test.example", "z.example"]);
    let port = proptest::option::weighted(0.3, 0..PORTS.len());
    (port, proptest::collection::vec((namespace, name), 1..4)).prop_map(|(port, hosts)| Listener { port, hosts })
}

fn mesh() -> impl Strategy<Value = MeshSpec> {
    let entry = (0..NAMESPACES.len(), some_of(HOSTS.len()), some_of(PORTS.len()), export_to())
        .prop_map(|(namespace, hosts, ports, export_to)| Entry { namespace, hosts, ports, export_to });
    let label = proptest::sample::select(vec![None, None, Some("one"), Some("two")]);
    let mode = proptest::sample::select(vec![None, None, Some("REGISTRY_ONLY"), Some("ALLOW_ANY")]);
    let sidecar = (0..NAMESPACES.len(), label, mode, proptest::collection::vec(listener(), 0..3)).prop_map(
        |(namespace, label, mode, mut listeners)| {
            // As Istio wants them: one for a port, and the catch-all last.
            listeners.sort_by_key(|listener| listener.port.map_or(usize::MAX, |port| port));
            listeners.dedup_by_key(|listener| listener.port);
            SidecarSpec { namespace, label, mode, listeners }
        },
    );
    (proptest::collection::vec(entry, 1..6), proptest::collection::vec(sidecar, 0..5)).prop_map(
        |(entries, mut sidecars)| {
            // One for each namespace and label: which of two counts is another test's.
            sidecars.sort_by_key(|sidecar| (sidecar.namespace, sidecar.label));
            sidecars.dedup_by_key(|sidecar| (sidecar.namespace, sidecar.label));
            MeshSpec { entries, sidecars }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_mesh_wide_configuration_lists_for_each_namespace_what_it_sees(mesh in mesh()) {
        let args = args(&["-A"]);
        let mut given = mesh.objects();
        // All namespaces are known, so that the one without any object counts, too.
        given.extend(NAMESPACES.map(|name| json!({"kind": "Namespace", "metadata": {"name": name}})));
        let (config, _) = render(&args, &given);
        for namespace in NAMESPACES {
            let policy = policy(&config, namespace, None);
            prop_assert_eq!(policy.mode(), mesh.mode(namespace, None), "{:#}", config);
            for (probe, port) in (0..PROBES.len()).flat_map(|probe| (0..PORTS.len()).map(move |port| (probe, port))) {
                prop_assert_eq!(
                    is_listed(&policy, probe, port),
                    mesh.sees(namespace, None, probe, port),
                    "{} {}:{} {:#}", namespace, PROBES[probe].0, PORTS[port].0, config
                );
            }
        }
        // Nobody named it: it may have less than it sees, never more.
        let policy = policy(&config, "unknown", None);
        for (probe, port) in (0..PROBES.len()).flat_map(|probe| (0..PORTS.len()).map(move |port| (probe, port))) {
            prop_assert!(!is_listed(&policy, probe, port) || mesh.sees("unknown", None, probe, port));
        }
    }

    #[test]
    fn workloads_have_what_their_sidecar_and_their_namespace_see(mesh in mesh(), namespace in 0..3_usize) {
        let namespace = NAMESPACES[namespace];
        for args in [args(&["-A"]), args(&["-n", namespace])] {
            let (config, warnings) = render(&args, &mesh.objects());
            // Without a Namespace object or any other a namespace is not known.
            let is_known = args.namespace.is_some() || mesh.objects().iter().any(|o| o["metadata"]["namespace"] == namespace);
            if !is_known {
                continue;
            }
            for label in [None, Some("one"), Some("two"), Some("three")] {
                let policy = policy(&config, namespace, label);
                prop_assert_eq!(policy.mode(), mesh.mode(namespace, label), "{:#}", config);
                for (probe, port) in (0..PROBES.len()).flat_map(|probe| (0..PORTS.len()).map(move |port| (probe, port))) {
                    let by_sidecar = mesh.sees(namespace, label, probe, port);
                    let by_namespace = mesh.sees(namespace, None, probe, port);
                    prop_assert_eq!(is_listed(&policy, probe, port), by_sidecar || by_namespace, "{:#}", config);
                    if by_namespace && !by_sidecar && policy.mode() == Mode::RegistryOnly {
                        prop_assert!(warnings.iter().any(|warning| warning.contains("it has less than its namespace")));
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_objects_does_not_matter(
        (mesh, shuffled) in mesh().prop_flat_map(|mesh| (Just(mesh.clone()), Just(mesh.objects()).prop_shuffle()))
    ) {
        for args in [args(&["-A"]), args(&["-n", "a"])] {
            let (config, warnings) = render(&args, &mesh.objects());
            let (again, warnings_again) = render(&args, &shuffled);
            prop_assert_eq!(config.to_string(), again.to_string());
            prop_assert_eq!(warnings, warnings_again);
        }
    }
}

#[test]
fn warns_where_workloads_get_more_because_two_sidecars_select_them() {
    let entry = |name: &str| {
        json!({
            "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "shared"},
            "spec": {"hosts": [format!("{name}.example")], "ports": [{"number": 443, "protocol": "TLS"}]},
        })
    };
    let sidecar = |name: &str, labels: Value, host: &str| {
        json!({
            "kind": "Sidecar", "metadata": {"name": name, "namespace": "a"},
            "spec": {"workloadSelector": {"labels": labels}, "egress": [{"hosts": [host]}]},
        })
    };
    let given = [
        entry("one"),
        entry("two"),
        json!({"kind": "Sidecar", "metadata": {"name": "default", "namespace": "a"}, "spec": {"egress": [{"hosts": ["./*"]}]}}),
        sidecar("s1", json!({"app": "x"}), "shared/one.example"),
        sidecar("s2", json!({"tier": "y"}), "shared/two.example"),
        sidecar("s3", json!({"app": "z"}), "shared/one.example"),
    ];
    let (_, warnings) = render(&args(&["-n", "a"]), &given);
    assert_eq!(
        warnings,
        [
            "test: Sidecar a/s2: spec.workloadSelector: workloads that Sidecar a/s1 selects, too, have only that one in \
             Istio; here they may reach two.example:443 (shared/two) as well",
            "test: Sidecar a/s3: spec.workloadSelector: workloads that Sidecar a/s2 selects, too, have only that one in \
             Istio; here they may reach one.example:443 (shared/one) as well",
        ]
    );
}

#[test]
fn a_tcp_port_takes_its_own_hosts_by_name_where_another_service_entry_has_tls() {
    let entry = |name: &str, protocol: &str| {
        json!({
            "kind": "ServiceEntry", "metadata": {"name": name, "namespace": "a"},
            "spec": {"hosts": [format!("{name}.example")], "ports": [{"number": 443, "protocol": protocol}]},
        })
    };
    let (config, _) = render(&args(&["-n", "a"]), &[entry("tcp", "TCP"), entry("tls", "TLS")]);
    let policy = policy(&config, "a", None);
    // Envoy read the SNI and chose the ServiceEntry of the TCP port, which has the last word on that listener.
    let attributes = KnownAttributes {
        address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        port: Some(443),
        connect_port: None,
        route: Route::Service("tcp.example"),
        is_routed_by_name: true,
        now: 0,
    };
    let reason = |name: &str| {
        let target = Target::Name(HostName::from_wire(name.as_bytes()).unwrap());
        policy.decide(&Destination { protocol: WireProtocol::Tls, target }, &attributes).reason
    };
    assert_eq!(reason("tcp.example"), Reason::Listed);
    assert_eq!(reason("other.example"), Reason::NotListed);
}

#[test]
fn a_plugin_for_the_root_namespace_alone_is_refused() {
    let args = args(&["-n", "root", "--format", "wasmplugin", "--url", "oci://here.test/f"]);
    let failure = args.run(&mut Vec::new()).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "--namespace root: a plugin in the root namespace is for the whole mesh; render with --all-namespaces"
    );
}

#[test]
fn the_example_of_the_documentation_is_a_golden_case() {
    let documentation = include_str!("../../../docs/egressctl/render.md");
    for part in [
        include_str!("../../tests/golden/render/example/mesh.yaml"),
        include_str!("../../tests/golden/render/example/stdout"),
        include_str!("../../tests/golden/render/example/stderr"),
    ] {
        assert!(documentation.contains(part), "not in the documentation:\n{part}");
    }
}
