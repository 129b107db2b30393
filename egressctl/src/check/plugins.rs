//! WasmPlugins, and the EnvoyFilters that attach egress-tcp: what lets things pass undecided, or keeps pods from starting.

use std::collections::{BTreeMap, BTreeSet};

use egress_filter::config::KnownNode;
use egress_filter::name::HostName;
use egress_filter::policy::{Destination, KnownAttributes, Policy, Target};

use super::entries::{self, Parsed};
use super::finding::Findings;
use super::rule::{self, Severity};
use super::values::{by_name, probes, representative};
use crate::configuration::{Configuration, List, Plugin};
use crate::document::{Node, Value};
use crate::object::{Kind, Object};
use crate::time::Time;

/// How many hosts a message names.
const NAMED: usize = 3;

/// Looks at all plugins of the filter.
pub fn check(
    objects: &[Object<'_>],
    configurations: &[Configuration<'_>],
    root_namespace: &str,
    now: Time,
    findings: &mut Findings,
) {
    for object in objects.iter().filter(|object| object.kind == Kind::WasmPlugin) {
        unknown_name(object, findings);
    }
    let plugins: Vec<&Configuration<'_>> =
        configurations.iter().filter(|one| one.object.kind != Kind::Configuration && one.plugin.is_some()).collect();
    for plugin in &plugins {
        of_one(plugin, findings);
    }
    pairs(&plugins, findings);
    attachments(objects, &plugins, findings);
    both_decide(&plugins, root_namespace, now, findings);
}

/// A WasmPlugin that loads this filter, by its image or its own name, as a plugin that the filter has not.
fn unknown_name(object: &Object<'_>, findings: &mut Findings) {
    let Some(spec) = object.spec() else { return };
    let url = spec.get("url").and_then(Node::text).unwrap_or_default();
    let name = spec.get("pluginName");
    // A patch for kustomize has only a part of the fields.
    let is_whole = name.is_some() || spec.get("pluginConfig").is_some();
    if !url.contains("egress-filter") || !is_whole {
        return;
    }
    let text = name.and_then(Node::text);
    if !matches!(text, Some("egress-http" | "egress-tcp")) {
        let given = text.map_or_else(|| "missing".to_owned(), |text| format!("{text:?}"));
        let message = format!("pluginName is {given}; set egress-http, or egress-tcp with type NETWORK");
        findings.add(&rule::UNKNOWN_PLUGIN, object, name.unwrap_or(spec), message);
    }
}

fn of_one(plugin: &Configuration<'_>, findings: &mut Findings) {
    let object = &plugin.object;
    let Some(spec) = object.spec() else { return };
    let wasm = spec.get("wasm").unwrap_or(spec);
    let modes: Vec<Option<&str>> = spec
        .get("match")
        .map(Node::list)
        .unwrap_or_default()
        .iter()
        .map(|one| one.get("mode").and_then(Node::text))
        .collect();
    if modes.is_empty() || modes.iter().any(|mode| *mode != Some("CLIENT")) {
        let at = spec.get("match").unwrap_or(spec);
        let message = "the plugin also judges what comes in; set match: [{mode: CLIENT}]".to_owned();
        findings.add(&rule::NOT_CLIENT, object, at, message);
    }
    match wasm.get("failStrategy") {
        Some(node) if node.text() == Some("FAIL_OPEN") => {
            let message = "everything passes when the module cannot be loaded; set FAIL_RELOAD".to_owned();
            findings.add(&rule::FAILS_OPEN, object, node, message);
        }
        Some(node) if node.text() == Some("FAIL_RELOAD") => {}
        other => {
            let message =
                "failStrategy is not FAIL_RELOAD: a module that traps stays closed until the sidecar is recreated";
            findings.add(&rule::NO_RELOAD, object, other.unwrap_or(wasm), message.to_owned());
        }
    }
    if let Some(node) = wasm.get("url")
        && node.text().is_some_and(|url| url.starts_with("oci://") && !url.contains("@sha256:"))
        && wasm.get("sha256").is_none()
    {
        let message = "the image is named by tag; name it by digest (make push prints it), or set sha256".to_owned();
        findings.add(&rule::BY_TAG, object, node, message);
    }
    if plugin.plugin == Some(Plugin::Tcp) && attaches_by_itself(spec) {
        let at = spec.get("match").unwrap_or(spec);
        let message = "Istio attaches it to the listeners of services itself; match a port that nobody uses, such as 65535, \
                       and let the EnvoyFilter attach it (istio/base/egress-tcp.yaml)";
        findings.add(&rule::ATTACHED_BY_ISTIO, object, at, message.to_owned());
    }
}

/// Whether any part of `match` lets Istio attach the plugin to a port in use.
fn attaches_by_itself(spec: &Node) -> bool {
    let matches = spec.elements("match");
    matches.is_empty()
        || matches.iter().any(|one| {
            let ports = one.elements("ports");
            let is_unused =
                |port: &Node| port.get("number").is_some_and(|number| number.value == Value::Number(65535.into()));
            ports.is_empty() || !ports.iter().all(is_unused)
        })
}

/// In each namespace both plugins, with one text.
fn pairs(plugins: &[&Configuration<'_>], findings: &mut Findings) {
    // On the same sidecars are those of one namespace and selector.
    let mut groups: BTreeMap<String, Vec<&Configuration<'_>>> = BTreeMap::new();
    for &plugin in plugins {
        let key = format!("{} {:?}", plugin.object.namespace(), plugin.selector());
        groups.entry(key).or_default().push(plugin);
    }
    for group in groups.values() {
        let of = |plugin| group.iter().find(|one| one.plugin == Some(plugin));
        match (of(Plugin::Http), of(Plugin::Tcp)) {
            (Some(http), Some(tcp)) if http.json() != tcp.json() => {
                let message =
                    format!("{} has another configuration than {}; give both the same text", tcp.object, http.object);
                findings.add(&rule::DIFFERENT, &tcp.object, tcp.find(""), message);
            }
            (Some(http), None) => {
                let message = "there is no egress-tcp beside it: TLS and TCP pass undecided".to_owned();
                findings.add(&rule::ONE_ALONE, &http.object, http.object.node, message);
            }
            (None, Some(tcp)) => {
                let message =
                    "there is no egress-http beside it: what Envoy parses as HTTP passes undecided".to_owned();
                findings.add(&rule::ONE_ALONE, &tcp.object, tcp.object.node, message);
            }
            _ => {}
        }
    }
}

/// Each egress-tcp needs an EnvoyFilter that waits for it by name, and each such EnvoyFilter its plugin.
fn attachments(objects: &[Object<'_>], plugins: &[&Configuration<'_>], findings: &mut Findings) {
    let filters: Vec<(&Object<'_>, &Node)> = objects
        .iter()
        .filter(|object| object.kind == Kind::EnvoyFilter)
        .flat_map(|object| discovered(object.node).into_iter().map(move |node| (object, node)))
        .collect();
    let mut wanted = BTreeSet::new();
    for plugin in plugins.iter().filter(|one| one.plugin == Some(Plugin::Tcp)) {
        let (namespace, name) = (plugin.object.namespace(), plugin.object.name());
        let names = resource_names(&plugin.object);
        let mut texts = filters.iter().filter_map(|(_, node)| node.text());
        // Without a namespace it is for kustomize to set, in both places.
        if namespace.is_empty() && !filters.is_empty() {
            wanted.extend(texts.filter(|text| text.contains(&format!(".{name}"))).map(str::to_owned));
            continue;
        }
        let is_attached = texts.any(|text| names.iter().any(|one| one == text));
        if !is_attached {
            let closing = if names.len() > 1 { ")" } else { "" };
            let severity = if filters.is_empty() { Severity::Note } else { Severity::Warning };
            let message = format!("no EnvoyFilter here waits for {}", names.join(" (before Istio 1.30: ")) + closing;
            findings.add_as(&rule::NOT_ATTACHED, severity, &plugin.object, plugin.object.node, message);
        }
        wanted.extend(names);
    }
    if plugins.is_empty() {
        return;
    }
    for (object, node) in filters {
        let text = node.text().unwrap_or_default();
        if text.contains("egress-tcp") && !wanted.contains(text) {
            let message =
                format!("{text:?} is the name of no plugin here; it has the plugin's namespace and name in it");
            findings.add(&rule::ATTACHES_NOTHING, object, node, message);
        }
    }
}

/// Under which names Istio serves a plugin: a WasmPlugin before 1.30 and from then on, a TrafficExtension under its own.
fn resource_names(object: &Object<'_>) -> Vec<String> {
    let (namespace, name) = (object.namespace(), object.name());
    if object.kind == Kind::TrafficExtension {
        return vec![format!("extensions.istio.io/trafficextension/{namespace}.{name}")];
    }
    vec![
        format!("extensions.istio.io/trafficextension/{namespace}.{name}~istio-translated-wasmplugin"),
        format!("extensions.istio.io/wasmplugin/{namespace}.{name}"),
    ]
}

/// The names of all filters whose configuration is discovered.
fn discovered(node: &Node) -> Vec<&Node> {
    let mut found = Vec::new();
    if node.get("config_discovery").is_some() {
        found.extend(node.get("name"));
    }
    for field in node.fields() {
        found.extend(discovered(&field.value));
    }
    for element in node.list() {
        found.extend(discovered(element));
    }
    found
}

/// A namespace's plugin beside a mesh-wide one: hosts that it lists and the other denies are denied.
fn both_decide(plugins: &[&Configuration<'_>], root_namespace: &str, now: Time, findings: &mut Findings) {
    for own in plugins.iter().filter(|one| !["", root_namespace].contains(&one.object.namespace())) {
        let is_wide = |one: &&&Configuration<'_>| one.object.namespace() == root_namespace && one.plugin == own.plugin;
        for wide in plugins.iter().filter(is_wide) {
            // Both select the pods that have the labels of both, if there can be any.
            let mut labels = wide.selector();
            if own.selector().iter().any(|(key, value)| labels.insert(key, value).is_some_and(|other| other != *value))
            {
                continue;
            }
            let node = KnownNode {
                namespace: Some(own.object.namespace().to_owned()),
                workload: None,
                labels: labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            };
            let Ok(policy) = wide.policy(&node) else { continue };
            let denied: Vec<String> = denied_by(&policy, &entries::parse(own), now).into_iter().collect();
            let object = &own.object;
            if denied.is_empty() {
                let message =
                    format!("{} decides on these workloads, too, and permits all that is listed here", wide.object);
                findings.add_as(&rule::BOTH_DECIDE, Severity::Note, object, object.node, message);
                continue;
            }
            let more = match denied.len() {
                0..=NAMED => String::new(),
                count => format!(" and {} more", count - NAMED),
            };
            let message = format!(
                "{} decides on these workloads, too, and does not permit {}{more}; list them there, in an override for this \
                 namespace",
                wide.object,
                denied.iter().take(NAMED).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
            );
            findings.add(&rule::BOTH_DECIDE, object, own.find("registry"), message);
        }
    }
}

/// The listed hosts that another policy denies on a port that they are listed for.
fn denied_by(policy: &Policy, entries: &[Parsed<'_>], now: Time) -> BTreeSet<String> {
    let mut denied = BTreeSet::new();
    let counts = |parsed: &&Parsed<'_>| {
        parsed.entry.list == List::Registry && parsed.expires.as_ref().is_none_or(|(end, _)| *end > now)
    };
    for parsed in entries.iter().filter(counts) {
        for (pattern, _) in &parsed.hosts {
            let text = representative(pattern);
            let Ok(name) = HostName::from_config(&text) else { continue };
            for (port, protocol) in probes(parsed) {
                let destination = Destination { protocol, target: Target::Name(name.clone()) };
                let attributes = KnownAttributes { now: now.0, ..by_name(port) };
                if policy.decide(&destination, &attributes).verdict != egress_filter::policy::Verdict::Allowed {
                    denied.insert(pattern.to_string());
                }
            }
        }
    }
    denied
}
