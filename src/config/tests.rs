//! What configurations mean that are accepted. What is said about those that are not stands in `tests/config_errors`.

use super::*;
use crate::mesh::Route;
use crate::name::Host;
use crate::policy::{Decision, Destination, KnownAttributes, Reason, Target, Verdict, WireProtocol};
use crate::registry::Protocol;

fn read(json: &str) -> Policy {
    read_at(json, &KnownNode::default())
}

fn read_at(json: &str, node: &KnownNode) -> Policy {
    Policy::from_json(json.as_bytes(), node).unwrap_or_else(|invalid| panic!("{json}: {invalid}"))
}

fn node(namespace: &str, workload: &str, labels: &[(&str, &str)]) -> KnownNode {
    KnownNode {
        namespace: Some(namespace.to_owned()),
        workload: Some(workload.to_owned()),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    }
}

/// Everything but the two registries, of which it has the numbers of entries and patterns.
fn settings(policy: &Policy) -> String {
    let names = |names: &[HostName<'_>]| names.iter().map(HostName::as_str).collect::<Vec<_>>().join(" ");
    format!(
        "{:?} {:?}, registry {}/{}, deny {}/{}, domains [{}], addresses {}, gateways [{}], trust {}, spoof {}, {:?}, {:?}, {:?}",
        policy.mode,
        policy.enforcement,
        policy.registry.entries(),
        policy.registry.host_patterns(),
        policy.deny.entries(),
        policy.deny.host_patterns(),
        names(&policy.mesh.domains),
        policy.mesh.has_addresses(),
        names(&policy.mesh.egress_gateways),
        policy.mesh.trust_registry,
        policy.spoof_protection,
        policy.deny_message,
        policy.inspection_timeout,
        policy.metrics,
    )
}

/// Asks for a host over HTTP; gives verdict, reason, label, and the name of the entry.
fn ask(policy: &Policy, host: &str, port: u16, now: i64) -> (Verdict, Reason, String, String) {
    let target = Target::from(Host::from_wire(host.as_bytes()));
    let destination = Destination { protocol: WireProtocol::Http, target };
    let attributes = KnownAttributes {
        address: None,
        port: Some(port),
        route: Route::External,
        is_routed_by_name: true,
        connect_port: None,
        now,
    };
    let Decision { verdict, reason, counted, entry } = policy.decide(&destination, &attributes);
    let registry = if reason == Reason::DenyListed { &policy.deny } else { &policy.registry };
    let entry = entry.map(|entry| registry.entry_name(entry)).unwrap_or_default();
    (verdict, reason, policy.host_label(counted).to_string(), entry)
}

fn reason(policy: &Policy, host: &str) -> Reason {
    ask(policy, host, 443, 0).1
}

const DEFAULTS: &str = "RegistryOnly Enforce, registry 0/0, deny 0/0, domains [cluster.local], addresses false, \
                        gateways [], trust false, spoof false, \"\", 5s, \
                        MetricsOptions { unlisted_hosts: 100, responses: false }";

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(settings(&Policy::default()), DEFAULTS);
    for json in [
        "",
        " \t\r\n",
        "{}",
        " { } \n",
        "null",
        r#"{"outboundTrafficPolicy": {}, "registry": [], "deny": [], "overrides": [], "mesh": {}, "tcp": {}, "metrics": {}}"#,
        r#"{"overrides": [{}, {"match": {}}, {"registry": [], "deny": [], "outboundTrafficPolicy": {}}]}"#,
    ] {
        assert_eq!(settings(&read(json)), DEFAULTS, "{json:?}");
    }
}

#[test]
fn a_field_with_nothing_behind_it_is_refused() {
    for json in [
        r#"{"registry": null}"#,
        r#"{"deny": null}"#,
        r#"{"overrides": null}"#,
        r#"{"mesh": {"domains": null}}"#,
        r#"{"spoofProtection": null}"#,
        r#"{"registry": [{"hosts": null, "addresses": ["10.0.0.1"]}]}"#,
        r#"{"registry": [{"hosts": ["a.example"], "ports": null}]}"#,
        r#"{"registry": [{"hosts": ["a.example"], "ports": []}]}"#,
        r#"{"registry": [{"hosts": ["a.example"], "expires": null}]}"#,
        r#"{"overrides": [{"match": {"labels": null}}]}"#,
        r#"{"overrides": [{"match": {"labels": {"team": null}}}]}"#,
    ] {
        let invalid = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap_err();
        assert_eq!(invalid.problems().len(), 1, "{json}: {invalid}");
        assert!(invalid.to_string().contains("leave the field out"), "{json}: {invalid}");
    }
}

const EVERYTHING: [&str; 10] = [
    r#""outboundTrafficPolicy": {"mode": "ALLOW_ANY"}"#,
    r#""enforcement": "REPORT""#,
    r#""registry": [
        {"name": "first", "hosts": ["api.stripe.com", "*.stripe.com"], "addresses": ["198.51.100.0/24"],
         "ports": [{"number": 443, "protocol": "TLS"}, {"number": 80, "protocol": "HTTP"}], "expires": "2027-01-31T00:00:00Z"},
        {"hosts": ["both.example"]}]"#,
    r#""deny": [{"name": "metadata", "addresses": ["169.254.169.254"]}, {"hosts": ["evil.example"]}]"#,
    r#""overrides": [
        {"registry": [{"name": "added", "hosts": ["both.example", "added.example"]}], "deny": [{"hosts": ["worse.example"]}],
         "match": {"labels": {"team": "data"}, "workloads": ["crawler"], "namespaces": ["dev", "qa"]}},
        {"enforcement": "ENFORCE", "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "match": {}}]"#,
    r#""mesh": {"domains": ["mesh.internal"], "addresses": ["10.0.0.0/8"], "egressGateways": ["gateway.mesh.internal"], "trustRegistry": true}"#,
    r#""spoofProtection": true"#,
    r#""denyMessage": "Register the host: go/egress""#,
    r#""tcp": {"inspectionTimeout": "1m30s"}"#,
    r#""metrics": {"responses": true, "unlistedHosts": 5}"#,
];

#[test]
fn every_field_is_read_and_their_order_says_nothing() {
    let dev = node("dev", "crawler", &[("team", "data")]);
    let mut fields = EVERYTHING;
    for rotation in 0..2 * fields.len() {
        let policy = read_at(&format!("{{{}}}", fields.join(",")), &dev);
        assert_eq!(
            settings(&policy),
            "RegistryOnly Enforce, registry 3/4, deny 3/2, domains [mesh.internal], addresses true, \
             gateways [gateway.mesh.internal], trust true, spoof true, \"Register the host: go/egress\", 90s, \
             MetricsOptions { unlisted_hosts: 5, responses: true }",
            "{fields:?}"
        );
        // The configuration's own entries come before those of its overrides, wherever they stand in the text.
        let listed = |label: &str, entry: &str| (Verdict::Allowed, Reason::Listed, label.to_owned(), entry.to_owned());
        assert_eq!(ask(&policy, "both.example", 80, 0), listed("both.example", "both.example"), "{fields:?}");
        assert_eq!(ask(&policy, "added.example", 80, 0), listed("added.example", "added"), "{fields:?}");
        assert_eq!(ask(&policy, "x.stripe.com", 80, 0), listed("*.stripe.com", "first"), "{fields:?}");
        assert_eq!(ask(&policy, "x.stripe.com", 81, 0).1, Reason::PortNotListed, "{fields:?}");
        assert_eq!(ask(&policy, "x.stripe.com", 443, 0).1, Reason::ProtocolNotListed, "{fields:?}");
        assert_eq!(reason(&policy, "worse.example"), Reason::DenyListed, "{fields:?}");
        assert_eq!(ask(&policy, "169.254.169.254", 80, 0).3, "metadata", "{fields:?}");
        fields.rotate_left(1);
        if rotation == fields.len() {
            fields.reverse();
        }
    }
}

#[test]
fn fields_within_an_entry_may_stand_in_any_order() {
    for entry in [
        r#"{"ports": [{"protocol": "http", "name": "web", "number": 80}], "expires": "2027-01-31T00:00:00Z", "hosts": ["a.example"], "name": "a"}"#,
        r#"{"hosts": ["a.example"], "name": "a", "expires": "2027-01-31T00:00:00Z", "ports": [{"number": 80, "name": "web", "protocol": "http"}]}"#,
    ] {
        let policy = read(&format!(r#"{{"registry": [{entry}]}}"#));
        let found = ask(&policy, "a.example", 80, 1_801_353_599);
        assert_eq!(found, (Verdict::Allowed, Reason::Listed, "a.example".into(), "a".into()), "{entry}");
        assert_eq!(ask(&policy, "a.example", 80, 1_801_353_600).1, Reason::Expired, "{entry}");
        assert_eq!(ask(&policy, "a.example", 81, 0).1, Reason::PortNotListed, "{entry}");
    }
}

#[test]
fn escapes_in_json_are_read_everywhere() {
    let policy = read(
        r#"{"\u0072egistry": [{"ho\u0073ts": ["\u0061.ex\u0061mple", "b\u00fccher.example"], "n\u0061me": "\u00e4\n"}]}"#,
    );
    assert_eq!(ask(&policy, "a.example", 443, 0).3, "ä\n");
    assert_eq!(reason(&policy, "xn--bcher-kva.example"), Reason::Listed);
}

#[test]
fn whole_numbers_may_be_written_as_floating_point() {
    let json = |port: &str| format!(r#"{{"registry": [{{"hosts": ["a.example"], "ports": [{{"number": {port}}}]}}]}}"#);
    for (port, number) in [("1", 1), ("443", 443), ("443.0", 443), ("4.43e2", 443), ("443e0", 443), ("65535.0", 65535)]
    {
        let policy = read(&json(port));
        assert_eq!(ask(&policy, "a.example", number, 0).1, Reason::Listed, "{port}");
        assert_eq!(ask(&policy, "a.example", number - 1, 0).1, Reason::PortNotListed, "{port}");
    }
    assert_eq!(read(r#"{"metrics": {"unlistedHosts": 1e2}}"#).metrics.unlisted_hosts, 100);
    assert_eq!(read(r#"{"metrics": {"unlistedHosts": -0.0}}"#).metrics.unlisted_hosts, 0);
}

#[test]
fn bounds_are_within_what_is_allowed() {
    assert_eq!(read(r#"{"metrics": {"unlistedHosts": 0}}"#).metrics.unlisted_hosts, 0);
    assert_eq!(read(r#"{"metrics": {"unlistedHosts": 10000}}"#).metrics.unlisted_hosts, MAX_UNLISTED_HOSTS);
    let longest = "m".repeat(MAX_DENY_MESSAGE);
    assert_eq!(read(&format!(r#"{{"denyMessage": "{longest}"}}"#)).deny_message, longest);
    let name = "n".repeat(253);
    let policy = read(&format!(r#"{{"registry": [{{"name": "{name}", "hosts": ["a.example"]}}]}}"#));
    assert_eq!(ask(&policy, "a.example", 443, 0).3, name);
}

#[test]
fn durations_have_the_forms_of_istio() {
    for (text, milliseconds) in [
        ("5s", 5_000),
        ("500ms", 500),
        ("1m30s", 90_000),
        ("1.5s", 1_500),
        ("0.001s", 1),
        ("1ms", 1),
        ("1000us", 1),
        ("1000µs", 1),
        ("1000000ns", 1),
        ("10m", 600_000),
        ("600s", 600_000),
        ("0h10m0s", 600_000),
        ("9m59.999s", 599_999),
    ] {
        let policy = read(&format!(r#"{{"tcp": {{"inspectionTimeout": "{text}"}}}}"#));
        assert_eq!(policy.inspection_timeout, Duration::from_millis(milliseconds), "{text}");
    }
}

#[test]
fn times_have_the_forms_of_rfc_3339() {
    for (text, unix_seconds) in [
        ("2027-01-31T00:00:00Z", 1_801_353_600),
        ("2027-01-31T00:00:00.9Z", 1_801_353_600),
        ("2027-01-31T02:00:00+02:00", 1_801_353_600),
        ("2027-01-30T19:00:00-05:00", 1_801_353_600),
        ("1970-01-01T00:00:01Z", 1),
        ("1969-12-31T23:59:59Z", -1),
    ] {
        let policy = read(&format!(r#"{{"registry": [{{"hosts": ["a.example"], "expires": "{text}"}}]}}"#));
        assert_eq!(ask(&policy, "a.example", 443, unix_seconds - 1).1, Reason::Listed, "{text}");
        assert_eq!(ask(&policy, "a.example", 443, unix_seconds).1, Reason::Expired, "{text}");
    }
}

#[test]
fn every_protocol_is_known_in_any_case() {
    for name in Protocol::NAMES.iter().flat_map(|name| [(*name).to_owned(), name.to_lowercase()]) {
        let ports = format!(r#"[{{"number": 443, "protocol": "{name}"}}]"#);
        let policy = read(&format!(r#"{{"registry": [{{"hosts": ["a.example"], "ports": {ports}}}]}}"#));
        let expected = if name.to_uppercase() == "HTTPS" || name.to_uppercase() == "TLS" {
            Reason::ProtocolNotListed
        } else {
            Reason::Listed
        };
        assert_eq!(reason(&policy, "a.example"), expected, "{name}");
    }
}

#[test]
fn hosts_are_kept_in_normal_form() {
    for (host, asked, label) in [
        ("API.Example.COM.", "api.example.com", "api.example.com"),
        ("*.Example.com.", "a.b.example.com", "*.example.com"),
        ("**.example.com", "a.example.com", "*.example.com"),
        ("Api-**.Example.com", "api-1.example.com", "api-*.example.com"),
        ("*.bücher.example", "a.xn--bcher-kva.example", "*.xn--bcher-kva.example"),
        ("example", "example", "example"),
        ("*.com", "a.com", "*.com"),
    ] {
        let policy = read(&format!(r#"{{"registry": [{{"hosts": ["{host}"]}}]}}"#));
        let expected = (Verdict::Allowed, Reason::Listed, label.to_owned(), label.to_owned());
        assert_eq!(ask(&policy, asked, 443, 0), expected, "{host}");
    }
}

#[test]
fn an_override_counts_where_all_its_parts_match() {
    let crawler = node("dev", "crawler", &[("team", "data"), ("app.kubernetes.io/name", "crawler")]);
    for (given, matches) in [
        ("{}", true),
        (r#"{"namespaces": ["dev"]}"#, true),
        (r#"{"namespaces": ["qa", "dev"]}"#, true),
        (r#"{"namespaces": ["qa"]}"#, false),
        (r#"{"namespaces": ["DEV"]}"#, false),
        (r#"{"namespaces": ["de"]}"#, false),
        (r#"{"namespaces": []}"#, false),
        (r#"{"workloads": ["crawler"]}"#, true),
        (r#"{"workloads": ["dev"]}"#, false),
        (r#"{"workloads": []}"#, false),
        (r#"{"labels": {}}"#, true),
        (r#"{"labels": {"team": "data"}}"#, true),
        (r#"{"labels": {"team": "data", "app.kubernetes.io/name": "crawler"}}"#, true),
        (r#"{"labels": {"team": "data", "app.kubernetes.io/name": "other"}}"#, false),
        (r#"{"labels": {"app.kubernetes.io/name": "other", "team": "data"}}"#, false),
        (r#"{"labels": {"tier": "data"}}"#, false),
        (r#"{"labels": {"tier": ""}}"#, false),
        (r#"{"namespaces": ["dev"], "workloads": ["crawler"], "labels": {"team": "data"}}"#, true),
        (r#"{"namespaces": ["qa"], "workloads": ["crawler"], "labels": {"team": "data"}}"#, false),
        (r#"{"labels": {"team": "data"}, "workloads": ["crawler"], "namespaces": ["qa"]}"#, false),
        (r#"{"namespaces": ["dev"], "workloads": ["other"]}"#, false),
    ] {
        // The match stands last: what is before it must not count when it turns out not to match.
        let json = format!(
            r#"{{"overrides": [{{"enforcement": "REPORT", "registry": [{{"hosts": ["a.example"]}}], "match": {given}}}]}}"#
        );
        let policy = read_at(&json, &crawler);
        assert_eq!(policy.registry.entries() == 1, matches, "{given}");
        assert_eq!(policy.enforcement == Enforcement::Report, matches, "{given}");
    }
}

#[test]
fn a_node_that_says_nothing_matches_only_what_matches_every_sidecar() {
    for (given, matches) in [
        ("{}", true),
        (r#"{"namespaces": [""]}"#, false),
        (r#"{"workloads": [""]}"#, false),
        (r#"{"labels": {"team": ""}}"#, false),
    ] {
        let policy = read(&format!(r#"{{"overrides": [{{"match": {given}, "enforcement": "REPORT"}}]}}"#));
        assert_eq!(policy.enforcement == Enforcement::Report, matches, "{given}");
    }
}

#[test]
fn a_match_whose_value_came_out_empty_opens_nothing() {
    let crawler = node("dev", "crawler", &[("team", "data")]);
    for given in [r#"{"namespaces": null}"#, r#"{"workloads": null}"#, r#"{"labels": {"team": null}}"#] {
        let json =
            format!(r#"{{"overrides": [{{"match": {given}, "outboundTrafficPolicy": {{"mode": "ALLOW_ANY"}}}}]}}"#);
        if let Ok(policy) = Policy::from_json(json.as_bytes(), &crawler) {
            assert_eq!(policy.mode, Mode::RegistryOnly, "{given}");
        }
    }
}

#[test]
fn later_scalars_win_and_lists_add_up() {
    let policy = read(
        r#"{
            "enforcement": "REPORT",
            "registry": [{"hosts": ["a.example"]}],
            "overrides": [
                {"enforcement": "ENFORCE", "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "registry": [{"hosts": ["b.example"]}]},
                {"match": {"namespaces": ["other"]}, "enforcement": "REPORT", "registry": [{"hosts": ["c.example"]}]},
                {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "registry": [{"hosts": ["d.example"]}, {"hosts": ["a.example"]}]}
            ]
        }"#,
    );
    assert_eq!((policy.mode, policy.enforcement), (Mode::RegistryOnly, Enforcement::Enforce));
    let hosts = ["a.example", "b.example", "c.example", "d.example"];
    assert_eq!(hosts.map(|host| reason(&policy, host) == Reason::Listed), [true, true, false, true]);
    assert_eq!(policy.registry.entries(), 4);
}

#[test]
fn a_problem_within_an_override_has_its_whole_path() {
    // `\ud83d` alone is no text. A reader that only passes over it does not notice.
    let json = r#"{"overrides": [{"registry": [{"hosts": ["\ud83d"]}]}, {"enforcement": "report"}]}"#;
    let invalid = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap_err();
    let paths: Vec<&str> = invalid.problems().iter().map(Problem::path).collect();
    assert_eq!(paths.last(), Some(&"overrides[1].enforcement"), "{invalid}");
}

#[test]
fn problems_come_in_the_order_of_the_text() {
    let json = r#"{"tcp": 5, "registry": [{"hosts": ["*"]}, {}], "enforcement": 1, "deny": [{"addresses": ["a"], "hosts": [""]}]}"#;
    let invalid = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap_err();
    let paths: Vec<&str> = invalid.problems().iter().map(Problem::path).collect();
    assert_eq!(
        paths,
        ["tcp", "registry[0].hosts[0]", "registry[1]", "enforcement", "deny[0].addresses[0]", "deny[0].hosts[0]"]
    );
}

#[test]
fn at_most_a_hundred_problems_are_kept() {
    for (stars, kept, last) in [(100, 100, ""), (101, 100, "\nand 1 more"), (5_000, 100, "\nand 4900 more")] {
        let json = format!(r#"{{"registry": [{{"hosts": [{}]}}]}}"#, vec![r#""*""#; stars].join(","));
        let invalid = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap_err();
        assert_eq!(invalid.problems().len(), kept);
        assert!(invalid.to_string().ends_with(last), "{stars}");
        assert_eq!(invalid.to_string().contains("\nand "), !last.is_empty());
    }
}

#[test]
fn a_problem_stays_short_whatever_the_configuration_says() {
    for key in ["k".repeat(1 << 20), "é".repeat(1 << 20), "\u{1}".repeat(1 << 20)] {
        let key = serde_json::to_string(&key).unwrap();
        for json in [
            format!(r#"{{{key}: 1}}"#),
            format!(r#"{{"enforcement": {key}}}"#),
            format!(r#"{{"registry": [{{"hosts": [{key}], {key}: 1, "expires": {key}, "addresses": [{key}]}}]}}"#),
            format!(r#"{{"overrides": [{{"match": {{"labels": {{{key}: 1}}}}}}]}}"#),
        ] {
            let invalid = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap_err();
            for problem in invalid.problems() {
                let length = problem.to_string().len();
                assert!(length < 2_000, "{length} bytes for {}...", &json[..40]);
            }
        }
    }
}
