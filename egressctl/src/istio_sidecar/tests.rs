//! Sidecars: whom they are for, and what they import.

use super::*;
use crate::object::objects;
use crate::source::Document;

fn documents(yaml: &str) -> Vec<Document> {
    let roots = crate::document::read(yaml).unwrap();
    let document = |root| Document { origin: "sidecar.yaml".into(), root, is_named: true, lines: Vec::new().into() };
    roots.into_iter().map(document).collect()
}

fn read(documents: &[Document]) -> Vec<Sidecar<'_>> {
    objects(documents).into_iter().map(|object| Sidecar::of(object).unwrap().unwrap()).collect()
}

#[test]
fn selects_hosts_as_istiod_does() {
    // egress[].hosts of a Sidecar of shop; the ServiceEntry's namespace and host; whether it is imported.
    for (hosts, namespace, host, expected) in [
        ("['*/*']", "shared", "api.test", true),
        ("['./*']", "shop", "api.test", true),
        ("['./*']", "shared", "api.test", false),
        ("['shared/*']", "shared", "*.api.test", true),
        ("['shared/*']", "shop", "api.test", false),
        ("['*/api.test']", "shared", "api.test", true),
        ("['*/api.test']", "shared", "API.test", false),
        ("['*/api.test']", "shared", "x.api.test", false),
        ("['*/*.test']", "shared", "api.test", true),
        ("['*/*.test']", "shared", "*.api.test", true),
        ("['*/*.api.test']", "shared", "*.api.test", true),
        ("['*/*.api.test']", "shared", "api.test", false),
        ("['*/*.x.api.test']", "shared", "*.api.test", false),
        ("['*/x.api.test']", "shared", "*.api.test", false),
        ("['~/*']", "shop", "api.test", false),
        ("['*/*', '~shared/*']", "shared", "api.test", false),
        ("['*/*', '~shared/*']", "shop", "api.test", true),
        ("['*/*', '~./*']", "shop", "api.test", false),
        ("['*/*', '~/api.test']", "shared", "api.test", false),
        ("['*/*', '~*/*.test']", "shared", "api.test", false),
        ("['*/*', '~shared/x.api.test']", "shared", "*.api.test", true),
        ("['~shared/*']", "shop", "api.test", false),
        ("['shared/api.test', '~*/api.test']", "shared", "api.test", false),
    ] {
        let documents = documents(&format!(
            "{{kind: Sidecar, metadata: {{name: x, namespace: shop}}, spec: {{egress: [{{hosts: {hosts}}}]}}}}"
        ));
        let sidecars = read(&documents);
        assert_eq!(sidecars[0].selects("shop", namespace, host), expected, "{hosts}: {namespace}/{host}");
        assert_eq!(sidecars[0].selects_port("shop", namespace, host, 443), expected, "{hosts}: {namespace}/{host}");
    }
}

#[test]
fn leaves_a_port_with_a_listener_of_its_own_to_that() {
    let documents = documents(
        "{kind: Sidecar, metadata: {name: x, namespace: shop}, spec: {egress: [\
         {port: {number: 443, protocol: TLS}, hosts: [./a.test]}, {port: {number: 15080, protocol: HTTP_PROXY}, \
         hosts: ['*/*']}, {hosts: [./b.test]}]}}",
    );
    let sidecar = &read(&documents)[0];
    let ports = |host| [80, 443, 15080].map(|port| sidecar.selects_port("shop", "shop", host, port));
    assert_eq!(ports("a.test"), [false, true, false]);
    assert_eq!(ports("b.test"), [true, false, true]);
    assert_eq!(ports("c.test"), [false, false, false]);
    assert!(sidecar.selects("shop", "shop", "a.test") && !sidecar.selects("shop", "shop", "c.test"));
}

#[test]
fn finds_the_sidecar_that_counts() {
    let yaml = "
kind: Sidecar
metadata: {name: of-all, namespace: root}
spec: {egress: [{hosts: [./*]}]}
---
kind: Sidecar
metadata: {name: later, namespace: a, creationTimestamp: '2026-02-01T00:00:00Z'}
spec: {outboundTrafficPolicy: {}}
---
kind: Sidecar
metadata: {name: sooner, namespace: a, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {outboundTrafficPolicy: {mode: ALLOW_ANY}}
---
kind: Sidecar
metadata: {name: crawler, namespace: a}
spec: {workloadSelector: {labels: {app: crawler}}, egress: [{hosts: ['*/*']}]}
---
kind: Sidecar
metadata: {name: crawler, namespace: b}
spec: {workloadSelector: {labels: {app: crawler}}, egress: [{hosts: ['*/*']}]}
---
kind: Sidecar
metadata: {name: empty, namespace: c}
spec: {workloadSelector: {}, egress: [{hosts: ['*/*']}]}
---
kind: Sidecar
metadata: {name: plain, namespace: c}
spec: {egress: [{hosts: ['*/*']}]}
";
    let documents = documents(yaml);
    let sidecars = Sidecars::new(read(&documents), "root");
    let default = |namespace| sidecars.default_of(namespace).map(|sidecar| sidecar.object.to_string());
    assert_eq!(default("a").as_deref(), Some("Sidecar a/sooner"));
    assert_eq!(default("b").as_deref(), Some("Sidecar root/of-all"));
    assert_eq!(default("c").as_deref(), Some("Sidecar c/empty"));
    assert_eq!(default("unknown").as_deref(), Some("Sidecar root/of-all"));
    let of_workloads = |namespace| sidecars.for_workloads_of(namespace).map(|sidecar| sidecar.object.name());
    assert_eq!(of_workloads("a").collect::<Vec<_>>(), ["crawler"]);
    assert_eq!(of_workloads("c").count(), 0);
    let unused: Vec<String> = sidecars.unused().iter().map(|sidecar| sidecar.object.to_string()).collect();
    assert_eq!(unused, ["Sidecar a/later", "Sidecar c/plain"]);
    assert_eq!(sidecars.default_of("a").unwrap().mode, Some(OutboundMode::AllowAny));
    // Without a mode it is Istio's default.
    assert_eq!(sidecars.unused()[0].mode, Some(OutboundMode::RegistryOnly));
}

#[test]
fn says_what_is_wrong() {
    let documents = documents(
        "kind: Sidecar\nmetadata: {name: bad, namespace: shop}\nspec:\n  workloadSelector: {labels: {v: 1}}\n  \
         outboundTrafficPolicy: {mode: CLOSED}\n  egress:\n  - hosts: [api.test, a/b/c]\n  - {}\n",
    );
    let invalid = Sidecar::of(objects(&documents)[0]).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "\
sidecar.yaml:4:34: Sidecar shop/bad: spec.workloadSelector.labels.v: 1: expected a text; put it in quotes
sidecar.yaml:5:33: Sidecar shop/bad: spec.outboundTrafficPolicy.mode: \"CLOSED\": unknown value; use one of REGISTRY_ONLY, \
         ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS
sidecar.yaml:7:13: Sidecar shop/bad: spec.egress[0].hosts[0]: \"api.test\": must be NAMESPACE/NAME, such as \"./*\" or \
         \"shared/api.example.com\"
sidecar.yaml:7:23: Sidecar shop/bad: spec.egress[0].hosts[1]: \"a/b/c\": must be NAMESPACE/NAME, such as \"./*\" or \
         \"shared/api.example.com\"
sidecar.yaml:8:5: Sidecar shop/bad: spec.egress[1].hosts: there is none; use \"*/*\" for every service"
    );
}
