//! What is suggested is enough: with it, nothing of what it was suggested for is denied.

use super::*;
use crate::access_log::{Evidence, Kind, Seen};
use crate::configuration::configurations;
use crate::object::objects;
use crate::sidecars::Sidecars;
use crate::source::Document;
use crate::suggest::rows::Suggestions;
use crate::suggest::wanted::{self, Judgement};

/// Numbers that are as good as random, and the same in every run (Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % most
    }

    fn one<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }
}

const HOSTS: &[&str] = &[
    "a.saas.example",
    "b.saas.example",
    "c.eu.saas.example",
    "saas.example",
    "API.partner.example",
    "x_y.partner.example",
    "203.0.113.9",
    "[2001:db8::9]",
    "admin.saas.example",
    "user@a.example",
    "reviews",
    "bucket.s3.amazonaws.com",
    "other.s3.amazonaws.com",
];
const ADDRESSES: &[&str] = &["192.0.2.1", "198.51.100.7", "[2001:db8::1]", "169.254.169.254"];
const PORTS: &[&str] = &["80", "443", "3306", "8443"];

struct Line {
    kind: Kind,
    namespace: &'static str,
    workload: &'static str,
    authority: String,
    server_name: &'static str,
    destination: String,
    cluster: &'static str,
    reason: &'static str,
    host: String,
}

fn line(dice: &mut Dice) -> Line {
    let destination = format!("{}:{}", dice.one(ADDRESSES), dice.one(PORTS));
    let host = dice.one(HOSTS);
    let (namespace, workload) = (dice.one(&["shop", "bank"]), dice.one(&["cart", "pay"]));
    let cluster = dice.one(&["PassthroughCluster", "PassthroughCluster", "outbound|443||api.partner.example", ""]);
    let mut line = Line {
        kind: Kind::Request,
        namespace,
        workload,
        authority: String::new(),
        server_name: "",
        destination: destination.clone(),
        cluster,
        reason: "not_listed",
        host: host.to_lowercase(),
    };
    match dice.below(5) {
        0 => line.authority = host.to_owned(),
        1 => {
            line.kind = Kind::Connect;
            line.authority = format!("{host}:{}", dice.one(PORTS));
        }
        2 => {
            line.kind = Kind::Connection;
            line.server_name = host;
        }
        3 => line.kind = Kind::Connection,
        _ => {
            line.kind = Kind::Connection;
            line.reason = dice.one(&["no_sni", "server_first", "no_client_data", "not_listed", "invalid_client_hello"]);
            line.host = destination;
        }
    }
    line
}

fn current(dice: &mut Dice) -> Value {
    let mut registry = vec![json!({"hosts": ["*.old.example"]})];
    if dice.below(2) == 0 {
        registry.push(json!({"hosts": ["a.saas.example"], "ports": [{"number": 443, "protocol": "HTTP"}]}));
    }
    if dice.below(2) == 0 {
        registry.push(json!({"hosts": ["*.partner.example"], "expires": "2020-01-01T00:00:00Z"}));
    }
    if dice.below(2) == 0 {
        registry.push(json!({"addresses": ["198.51.100.0/24"], "ports": [{"number": 3306, "protocol": "TLS"}]}));
    }
    let mode = dice.one(&["REGISTRY_ONLY", "REGISTRY_ONLY", "ALLOW_ANY"]);
    json!({
        "outboundTrafficPolicy": {"mode": mode},
        "enforcement": dice.one(&["ENFORCE", "REPORT"]),
        "registry": registry,
        "deny": [{"hosts": ["admin.saas.example"]}, {"addresses": ["169.254.169.254"]}],
        "overrides": [{"match": {"namespaces": ["shop"]}, "registry": [{"hosts": ["b.saas.example"]}]}],
        "mesh": {"addresses": ["10.0.0.0/8"]},
    })
}

fn documents(configuration: &Value) -> Vec<Document> {
    vec![Document::from_cluster("test", configuration.clone())]
}

fn append(configuration: &mut Value, addition: &Value) {
    for field in ["registry", "overrides"] {
        let more = addition[field].as_array().cloned().unwrap_or_default();
        configuration[field].as_array_mut().unwrap().extend(more);
    }
}

#[test]
fn nothing_that_was_suggested_is_denied_once_the_suggestions_are_added() {
    let (now, mut suggested, mut wildcards) = (1_800_000_000, 0, 0);
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let mut configuration = current(&mut dice);
        let lines: Vec<Line> = (0..40).map(|_| line(&mut dice)).collect();
        let scope = [Scope::Namespace, Scope::Workload, Scope::Mesh][dice.below(3)];
        let least = [None, Some(2), Some(3)][dice.below(3)];

        let documents_before = documents(&configuration);
        let listed = configurations(&objects(&documents_before), "test").unwrap();
        let mut before = Sidecars::new(listed, "istio-system").unwrap();
        let mut suggestions = Suggestions::new(1000);
        let mut missing = Vec::new();
        for line in &lines {
            let evidence = Evidence {
                kind: line.kind,
                namespace: line.namespace,
                workload: line.workload,
                authority: &line.authority,
                server_name: line.server_name,
                destination: &line.destination,
                cluster: line.cluster,
                route_name: "",
                verdict: "denied",
                reason: line.reason,
                host: &line.host,
            };
            let Ok(call) = crate::access_log::LoggedCall::of(&evidence) else { continue };
            let enforced = before.of(&call.namespace, &call.workload).unwrap();
            let Ok(judgement) = wanted::judge(&call, Some(enforced), now) else { continue };
            if matches!(judgement, Judgement::Missing { .. }) {
                missing.push(call.clone());
            }
            suggestions.take(&call, Seen::once(None), judgement);
        }
        let rows = suggestions.finish(1, least, scope);
        wildcards += rows.rows.values().filter(|row| row.names > 1).count();
        let addition = super::configuration(&proposed(&rows, scope));

        // The text says the same as the value.
        let mut text = Vec::new();
        write(&rows, scope, Format::Yaml, &mut text).unwrap();
        let read = crate::document::read(std::str::from_utf8(&text).unwrap()).unwrap();
        assert_eq!(read.first().map(crate::document::Node::to_value), Some(addition.clone()));

        append(&mut configuration, &addition);
        let documents_after = documents(&configuration);
        let listed = configurations(&objects(&documents_after), "test").unwrap();
        let mut after = Sidecars::new(listed, "istio-system").unwrap();
        for call in missing {
            let enforced = after.of(&call.namespace, &call.workload).unwrap();
            let judgement = wanted::judge(&call, Some(enforced), now).unwrap();
            assert_eq!(judgement, Judgement::Fine, "seed {seed}: {call:?} with {addition}");
            suggested += 1;
        }
    }
    assert!(suggested > 5000 && wildcards > 30, "{suggested} calls, {wildcards} wildcards");
}

#[test]
fn never_suggests_what_the_deny_list_or_a_metadata_service_has() {
    let documents = documents(&json!({"deny": [{"hosts": ["*.bad.example"]}]}));
    let listed = configurations(&objects(&documents), "test").unwrap();
    let mut sidecars = Sidecars::new(listed, "istio-system").unwrap();
    for (authority, destination, expected) in [
        ("x.bad.example", "192.0.2.1:80", "the deny list has it"),
        ("169.254.169.254", "169.254.169.254:80", "link-local, loopback or a cloud's metadata service"),
        ("rebound.example", "169.254.169.254:80", "link-local, loopback or a cloud's metadata service"),
        ("metadata.google.internal", "192.0.2.1:80", "link-local, loopback or a cloud's metadata service"),
        ("[fd00:ec2::254]", "[fd00:ec2::254]:80", "link-local, loopback or a cloud's metadata service"),
        ("reviews", "192.0.2.1:9080", "a name of the mesh: repair the client, or mesh.domains"),
        ("a.b.svc.cluster.local", "192.0.2.1:9080", "a name of the mesh: repair the client, or mesh.domains"),
        ("a,b", "192.0.2.1:80", "no name"),
    ] {
        let evidence = Evidence {
            kind: Kind::Request,
            namespace: "shop",
            workload: "cart",
            authority,
            server_name: "",
            destination,
            cluster: "PassthroughCluster",
            route_name: "",
            verdict: "denied",
            reason: "not_listed",
            host: "",
        };
        let call = crate::access_log::LoggedCall::of(&evidence).unwrap();
        let judgement = wanted::judge(&call, Some(sidecars.of("shop", "cart").unwrap()), 0);
        let Ok(Judgement::Not(unwanted)) = judgement else { panic!("{authority}: {judgement:?}") };
        assert_eq!(unwanted.explanation(), expected, "{authority}");
    }
}
