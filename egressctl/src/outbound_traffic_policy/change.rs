//! Composing: which fields of a plugin configuration a change sets, what comes of it, and for whom something else stays.
//!
//! Pure: objects in, objects out. That the result means what is wanted is not assumed but asked of the filter's reader.

use egress_filter::config::KnownNode;
use serde_json::{Map, Value, json};

use super::enforced::{Meaning, meaning, told_apart};
use super::{Wanted, enforcement_name, mode_name, workloads_of};
use crate::configuration::Configuration;
use crate::document::Node;
use crate::object::Kind;
use crate::source::Document;

/// For whom a policy is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// The whole mesh, by a mesh-wide plugin.
    Mesh,
    /// One namespace, by a plugin of its own.
    Own(&'a str),
    /// One namespace, by an override of a mesh-wide plugin.
    Override(&'a str),
}

impl Scope<'_> {
    /// The sidecars at large that it is for.
    fn node(self) -> KnownNode {
        let namespace = match self {
            Scope::Mesh => None,
            Scope::Own(namespace) | Scope::Override(namespace) => Some(namespace.to_owned()),
        };
        KnownNode { namespace, ..KnownNode::default() }
    }
}

/// The fields of the configuration that are to be set, as a JSON merge patch of it.
///
/// # Errors
///
/// `overrides` is there and no list.
pub(super) fn fields(configuration: &Configuration<'_>, scope: Scope<'_>, wanted: Wanted) -> Result<Value, String> {
    match scope {
        Scope::Mesh | Scope::Own(_) => Ok(scalars(wanted)),
        Scope::Override(namespace) => Ok(json!({"overrides": overrides(configuration, namespace, wanted)?})),
    }
}

fn scalars(wanted: Wanted) -> Value {
    let mut fields = Map::new();
    if let Some(mode) = wanted.mode {
        fields.insert("outboundTrafficPolicy".to_owned(), json!({"mode": mode_name(mode)}));
    }
    if let Some(enforcement) = wanted.enforcement {
        fields.insert("enforcement".to_owned(), enforcement_name(enforcement).into());
    }
    Value::Object(fields)
}

/// The override that is exactly the namespace's is edited. Otherwise a new one goes behind the last that matches the whole
/// namespace, so that it wins, and before those that match parts of it, so that these go on winning.
fn overrides(configuration: &Configuration<'_>, namespace: &str, wanted: Wanted) -> Result<Vec<Value>, String> {
    if configuration.node().get("overrides").is_some_and(|node| !matches!(node.value, crate::document::Value::List(_)))
    {
        return Err("overrides: not a list; make it one".to_owned());
    }
    let mut list: Vec<Value> = configuration.overrides().iter().map(Node::to_value).collect();
    let exactly = json!({"namespaces": [namespace]});
    if let Some(own) = list.iter_mut().rev().find(|one| one.get("match") == Some(&exactly)) {
        *own = merged(own.take(), &scalars(wanted));
        return Ok(list);
    }
    let mut new = json!({"match": exactly});
    new = merged(new, &scalars(wanted));
    let node = Scope::Override(namespace).node();
    let last_of_all = (0..list.len()).rev().find(|&position| configuration.matches(position, &node));
    let first_of_some = configuration.criteria().iter().position(|criteria| {
        let is_here = criteria.namespaces.as_ref().is_none_or(|namespaces| namespaces.contains(&namespace));
        is_here && (criteria.workloads.is_some() || !criteria.labels.is_empty())
    });
    let position = last_of_all.map(|last| last + 1).or(first_of_some).unwrap_or(list.len());
    list.insert(position, new);
    Ok(list)
}

/// A value with a JSON merge patch (RFC 7386) applied that deletes nothing.
pub(super) fn merged(mut value: Value, patch: &Value) -> Value {
    let Value::Object(fields) = patch else {
        return patch.clone();
    };
    if !value.is_object() {
        value = Value::Object(Map::new());
    }
    if let Value::Object(own) = &mut value {
        for (key, patch) in fields {
            let old = own.get_mut(key).map(Value::take).unwrap_or_default();
            own.insert(key.clone(), merged(old, patch));
        }
    }
    value
}

/// A merge patch of the whole object that sets these fields of its configuration.
pub(super) fn of_object(configuration: &Configuration<'_>, fields: &Value) -> Value {
    match configuration.object.kind {
        Kind::TrafficExtension => json!({"spec": {"wasm": {"pluginConfig": fields}}}),
        _ => json!({"spec": {"pluginConfig": fields}}),
    }
}

/// The object with a merge patch applied.
pub(super) fn after(configuration: &Configuration<'_>, patch: &Value) -> Document {
    let object = configuration.object;
    Document::from_cluster(&object.document.origin, merged(object.node.to_value(), patch))
}

/// Whether the configuration, changed already, means what is wanted for the sidecars at large.
///
/// # Errors
///
/// It does not, and why: the filter refuses it, or a later override wins.
pub(super) fn judge(changed: &Configuration<'_>, scope: Scope<'_>, wanted: Wanted) -> Result<(), String> {
    let node = scope.node();
    match meaning(changed, &node) {
        Meaning::Invalid(invalid) => Err(format!("the filter would refuse it:\n{invalid}")),
        Meaning::Policy { mode, enforcement, .. } if wanted.holds(mode, enforcement) => Ok(()),
        Meaning::Policy { mode, enforcement, .. } => {
            let whom = match scope {
                Scope::Mesh => "every sidecar".to_owned(),
                Scope::Own(namespace) | Scope::Override(namespace) => format!("all of namespace {namespace}"),
            };
            let what = differing(wanted, &Meaning::Policy { mode, enforcement, hosts: 0 }).join(" and ");
            let by = deciding(changed, &node, wanted)
                .map_or_else(|| "another override".to_owned(), |position| format!("overrides[{position}]"));
            Err(format!("{by}, which matches {whom}, comes later and sets {what}; edit it or take it out"))
        }
    }
}

/// Sidecars within the scope that keep something else, each in words: `ALLOW_ANY stays for workload crawler, by overrides[1]`.
pub(super) fn exceptions(
    changed: &Configuration<'_>,
    scope: Scope<'_>,
    wanted: Wanted,
    root_namespace: &str,
) -> Vec<String> {
    let nodes = match scope {
        Scope::Own(namespace) | Scope::Override(namespace) => told_apart(changed, namespace, root_namespace),
        Scope::Mesh => told_apart_anywhere(changed),
    };
    let mut notes = Vec::new();
    for node in nodes {
        let what = differing(wanted, &meaning(changed, &node)).join(" and ");
        if what.is_empty() {
            continue;
        }
        let namespace = match (scope, &node.namespace) {
            (Scope::Mesh, Some(namespace)) => format!("namespace {namespace}"),
            _ => String::new(),
        };
        let whom = [namespace, workloads_of(&node)].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        let by =
            deciding(changed, &node, wanted).map_or_else(String::new, |position| format!(", by overrides[{position}]"));
        let note = format!("{what} stays for {}{by}", whom.join(", "));
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes
}

/// One node for each combination of names that an override asks for.
fn told_apart_anywhere(configuration: &Configuration<'_>) -> Vec<KnownNode> {
    let mut nodes = Vec::new();
    for criteria in configuration.criteria() {
        let any = |names: Option<Vec<&str>>| match names {
            None => vec![None],
            Some(names) => names.into_iter().map(|name| Some(name.to_owned())).collect(),
        };
        let labels: std::collections::BTreeMap<String, String> =
            criteria.labels.iter().map(|(&key, &value)| (key.to_owned(), value.to_owned())).collect();
        for namespace in any(criteria.namespaces) {
            for workload in any(criteria.workloads.clone()) {
                nodes.push(KnownNode { namespace: namespace.clone(), workload, labels: labels.clone() });
            }
        }
    }
    // An empty match is everybody, and no exception.
    nodes.retain(|node| *node != KnownNode::default());
    nodes
}

/// What of a meaning is not as wanted.
pub(super) fn differing(wanted: Wanted, meaning: &Meaning) -> Vec<&'static str> {
    let Meaning::Policy { mode, enforcement, .. } = meaning else {
        return Vec::new();
    };
    let mode = wanted.mode.filter(|wanted| wanted != mode).map(|_| mode_name(*mode));
    let enforcement = wanted.enforcement.filter(|wanted| wanted != enforcement).map(|_| enforcement_name(*enforcement));
    mode.into_iter().chain(enforcement).collect()
}

/// The last override that matches these sidecars and sets something else than is wanted.
fn deciding(configuration: &Configuration<'_>, node: &KnownNode, wanted: Wanted) -> Option<usize> {
    let overrides = configuration.overrides();
    let sets_other = |part: &Node| {
        let mode = part.within(&["outboundTrafficPolicy", "mode"]).and_then(Node::text);
        let enforcement = part.get("enforcement").and_then(Node::text);
        wanted.mode.is_some_and(|wanted| mode.is_some_and(|mode| mode != mode_name(wanted)))
            || wanted.enforcement.is_some_and(|wanted| enforcement.is_some_and(|own| own != enforcement_name(wanted)))
    };
    (0..overrides.len())
        .rev()
        .find(|&position| overrides.get(position).is_some_and(sets_other) && configuration.matches(position, node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::objects;
    use egress_filter::policy::{Enforcement, Mode};

    const ALLOWED: Wanted = Wanted { mode: Some(Mode::AllowAny), enforcement: None };
    const RESTRICTED: Wanted = Wanted { mode: Some(Mode::RegistryOnly), enforcement: None };
    const REPORTED: Wanted = Wanted { mode: None, enforcement: Some(Enforcement::Report) };

    /// The configuration after the change, what the filter makes of it, and the exceptions.
    fn set(config: Value, scope: Scope<'_>, wanted: Wanted) -> (Value, Result<(), String>, Vec<String>) {
        let plugin = json!({
            "kind": "WasmPlugin", "apiVersion": "extensions.istio.io/v1alpha1",
            "metadata": {"name": "egress-http", "namespace": "istio-system"},
            "spec": {"pluginName": "egress-http", "pluginConfig": config},
        });
        let before = [Document::from_cluster("lab", plugin)];
        let before = Configuration::of(objects(&before)[0]).unwrap();
        let patch = of_object(&before, &fields(&before, scope, wanted).unwrap());
        let after = [after(&before, &patch)];
        let changed = Configuration::of(objects(&after)[0]).unwrap();
        let value = changed.node().to_value();
        (value, judge(&changed, scope, wanted), exceptions(&changed, scope, wanted, "istio-system"))
    }

    fn of_shop(config: Value, wanted: Wanted) -> Value {
        let (value, judged, _) = set(config, Scope::Override("shop"), wanted);
        assert_eq!(judged, Ok(()));
        value["overrides"].clone()
    }

    #[test]
    fn sets_the_field_for_all_and_leaves_the_rest() {
        let before = json!({"registry": [{"hosts": ["a.example"]}], "enforcement": "REPORT"});
        let (value, judged, notes) = set(before.clone(), Scope::Mesh, ALLOWED);
        assert_eq!(value, merged(before, &json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}})));
        assert_eq!((judged, notes), (Ok(()), Vec::new()));
        let (value, ..) = set(Value::Null, Scope::Mesh, REPORTED);
        assert_eq!(value, json!({"enforcement": "REPORT"}));
    }

    #[test]
    fn edits_the_override_that_is_exactly_the_namespace_s() {
        let own =
            json!({"match": {"namespaces": ["shop"]}, "registry": [{"hosts": ["a.example"]}], "enforcement": "REPORT"});
        let both = json!({"match": {"namespaces": ["shop", "bank"]}, "enforcement": "ENFORCE"});
        let after = of_shop(json!({"overrides": [both, own]}), ALLOWED);
        assert_eq!(after, json!([both, merged(own, &json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}}))]));
    }

    #[test]
    fn puts_a_new_override_behind_wider_ones_and_before_narrower_ones() {
        let all = json!({"match": {}, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
        let two =
            json!({"match": {"namespaces": ["bank", "shop"]}, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
        let bank = json!({"match": {"namespaces": ["bank"]}});
        let crawler = json!({"match": {"workloads": ["crawler"]}, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
        let new = json!({"match": {"namespaces": ["shop"]}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}});
        for (before, after) in [
            (json!([]), json!([new])),
            (json!([bank]), json!([bank, new])),
            (json!([crawler]), json!([new, crawler])),
            (json!([bank, crawler, bank]), json!([bank, new, crawler, bank])),
            (json!([all, two, crawler]), json!([all, two, new, crawler])),
            (json!([crawler, two, crawler]), json!([crawler, two, new, crawler])),
        ] {
            assert_eq!(of_shop(json!({"overrides": before}), ALLOWED), after, "{before}");
        }
    }

    #[test]
    fn says_which_later_override_wins() {
        let own = json!({"match": {"namespaces": ["shop"]}});
        let later =
            json!({"match": {"namespaces": ["shop", "bank"]}, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}});
        let (_, judged, _) = set(json!({"overrides": [own, later]}), Scope::Override("shop"), ALLOWED);
        let problem = "overrides[1], which matches all of namespace shop, comes later and sets REGISTRY_ONLY; edit it or take it out";
        assert_eq!(judged.unwrap_err(), problem);
        let all = json!({"match": {}, "enforcement": "ENFORCE"});
        let (_, judged, _) = set(json!({"overrides": [all]}), Scope::Mesh, REPORTED);
        let problem = "overrides[0], which matches every sidecar, comes later and sets ENFORCE; edit it or take it out";
        assert_eq!(judged.unwrap_err(), problem);
    }

    #[test]
    fn sees_that_an_override_of_a_namespace_s_own_plugin_wins() {
        let own = json!({"match": {"namespaces": ["shop"]}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}});
        let (_, judged, _) = set(json!({"overrides": [own]}), Scope::Own("shop"), RESTRICTED);
        let problem =
            "overrides[0], which matches all of namespace shop, comes later and sets ALLOW_ANY; edit it or take it out";
        assert_eq!(judged.unwrap_err(), problem);
    }

    #[test]
    fn says_for_whom_something_else_stays() {
        let crawler = json!({"match": {"workloads": ["crawler"]}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}});
        let data = json!({"match": {"namespaces": ["bank"], "labels": {"team": "data"}}, "outboundTrafficPolicy": {"mode": "ALLOW_ANY"}});
        let (_, _, notes) = set(json!({"overrides": [crawler, data]}), Scope::Override("shop"), RESTRICTED);
        assert_eq!(notes, ["ALLOW_ANY stays for workload crawler, by overrides[1]"]);
        let (_, _, notes) = set(json!({"overrides": [crawler, data]}), Scope::Mesh, RESTRICTED);
        assert_eq!(
            notes,
            [
                "ALLOW_ANY stays for workload crawler, by overrides[0]",
                "ALLOW_ANY stays for namespace bank, team=data, by overrides[1]"
            ]
        );
    }

    #[test]
    fn says_what_the_filter_would_refuse() {
        let (_, judged, _) = set(json!({"registry": [{"hosts": ["*bad.example"]}]}), Scope::Mesh, ALLOWED);
        let problem = "the filter would refuse it:\nregistry[0].hosts[0]: \"*bad.example\": the wildcard must be a whole label; use \"*.bad.example\"";
        assert_eq!(judged.unwrap_err(), problem);
    }
}
