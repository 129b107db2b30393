//! Istio's own policy: `outboundTrafficPolicy.mode` of its MeshConfig, and of Sidecars, which come before it.
//!
//! MeshConfig is a YAML text within a ConfigMap, written by people. So the text itself is edited, at the place that the
//! reader gives, and nothing else of it; whether that is what came of it is seen by reading it again.

use egress_filter::config::KnownNode;
use egress_filter::policy::Mode;
use serde_json::{Value, json};

use super::mode_name;
use crate::cluster::Cluster;
use crate::document::{self, Node, Position};
use crate::failure::{Failure, Result};
use crate::object::{Kind, Object};
use crate::source::Document;

/// The key of the ConfigMap.
pub(super) const KEY: &str = "mesh";
const FIELD: &str = "outboundTrafficPolicy";

/// What a ConfigMap says of Istio's own policy.
#[derive(Debug)]
pub(super) struct MeshConfig {
    /// The ConfigMap; `None` if there is none.
    pub document: Option<Document>,
    /// `ALLOW_ANY`, `REGISTRY_ONLY`, or whatever else stands there; `None` if the field does not.
    pub mode: Option<String>,
}

impl MeshConfig {
    pub(super) fn read(cluster: &Cluster, namespace: &str, name: &str) -> Result<Self> {
        let document = cluster.find(Kind::ConfigMap, Some(namespace), name)?;
        let Some(text) = document.as_ref().and_then(text_of) else {
            return Ok(MeshConfig { document, mode: None });
        };
        let roots = document::read(text).map_err(|invalid| {
            let at = invalid.at;
            Failure::new(format!(
                "ConfigMap {namespace}/{name}: {KEY}, line {}, column {}: {invalid}; repair it with `kubectl edit configmap -n \
                 {namespace} {name}`",
                at.line, at.column
            ))
        })?;
        let policy =
            roots.first().and_then(|root| root.get(FIELD)).filter(|policy| policy.value != document::Value::Null);
        let mode = policy.map(mode_of);
        Ok(MeshConfig { document, mode })
    }

    /// What holds: Istio's default, if nothing is set.
    pub(super) fn effective(&self) -> &str {
        self.mode.as_deref().unwrap_or("ALLOW_ANY")
    }
}

/// The text of the MeshConfig.
pub(super) fn text_of(config_map: &Document) -> Option<&str> {
    config_map.root.within(&["data", KEY]).and_then(Node::text)
}

/// The mode of an `outboundTrafficPolicy` that is there. Without a mode it is not the default of Istio, but the first of the
/// enum; protobuf's JSON takes its numbers, too.
fn mode_of(policy: &Node) -> String {
    let mode = policy
        .get("mode")
        .map_or_else(|| "null".to_owned(), |mode| mode.text().map_or_else(|| mode.to_json(), str::to_owned));
    match mode.as_str() {
        "null" | "0" => mode_name(Mode::RegistryOnly).to_owned(),
        "1" => mode_name(Mode::AllowAny).to_owned(),
        _ => mode,
    }
}

/// Istio's own policy for some sidecars, and the Sidecar that sets it; `None` where the mesh's holds. Of several the one
/// that selects the workload comes first, then the namespace's, then the root namespace's; only one counts.
pub(super) fn by_sidecar<'a>(
    sidecars: &[Object<'a>],
    node: &KnownNode,
    root_namespace: &str,
) -> Option<(String, Object<'a>)> {
    let namespace = node.namespace.as_deref().unwrap_or_default();
    let selects = |object: &Object<'_>| {
        let labels = selector(*object);
        !labels.is_empty()
            && labels.iter().all(|(key, value)| node.labels.get(*key).map(String::as_str) == Some(*value))
    };
    let is_default = |object: &Object<'_>| selector(*object).is_empty();
    let here = || sidecars.iter().filter(|object| object.namespace() == namespace);
    let counts =
        here().find(|object| selects(object)).or_else(|| here().find(|object| is_default(object))).or_else(|| {
            sidecars.iter().filter(|object| object.namespace() == root_namespace).find(|one| is_default(one))
        })?;
    Some((mode_of(counts.spec()?.get(FIELD)?), *counts))
}

/// The labels that a Sidecar selects workloads by; none is all.
pub(super) fn selector<'a>(sidecar: Object<'a>) -> Vec<(&'a str, &'a str)> {
    let labels = sidecar.spec().and_then(|spec| spec.within(&["workloadSelector", "labels"]));
    let fields = labels.map(Node::fields).unwrap_or_default();
    fields.iter().filter_map(|field| Some((field.key.as_str(), field.value.text()?))).collect()
}

/// The MeshConfig's text with this mode, and with nothing else changed.
///
/// # Errors
///
/// Text that is no YAML, or in which the mode stands in a form that is not edited here.
pub(super) fn edited(text: &str, mode: Mode) -> std::result::Result<String, String> {
    let before = root_of(text)?;
    let mode = mode_name(mode);
    if before.within(&[FIELD, "mode"]).and_then(Node::text) == Some(mode) {
        return Ok(text.to_owned());
    }
    let edited = edit(text, &before, mode).ok_or_else(by_hand)?;
    let mut expected = before.to_value();
    if expected.is_null() {
        expected = json!({});
    }
    match expected.get_mut(FIELD) {
        Some(Value::Object(fields)) => {
            fields.insert("mode".to_owned(), mode.into());
        }
        _ => match expected.as_object_mut() {
            Some(fields) => {
                fields.insert(FIELD.to_owned(), json!({"mode": mode}));
            }
            None => return Err("the MeshConfig is no object".to_owned()),
        },
    }
    if root_of(&edited).is_ok_and(|after| after.to_value() == expected) { Ok(edited) } else { Err(by_hand()) }
}

fn by_hand() -> String {
    format!("{FIELD} stands there in a form that is not edited here; edit it by hand")
}

fn root_of(text: &str) -> std::result::Result<Node, String> {
    let mut roots = document::read(text).map_err(|invalid| format!("line {}: {invalid}", invalid.at.line))?;
    if roots.len() > 1 {
        return Err("there is more than one YAML document; keep one".to_owned());
    }
    Ok(roots.pop().unwrap_or_default())
}

/// The edit; `None` where its form is not known. Whoever calls looks at what came of it.
fn edit(text: &str, root: &Node, mode: &str) -> Option<String> {
    let Some(field) = root.fields().iter().rev().find(|field| field.key == FIELD) else {
        return with_new_field(text, root, mode);
    };
    if let Some(old) = field.value.get("mode") {
        let begin = offset(text, old.at)?;
        let old = old.text().map_or_else(|| old.to_json(), str::to_owned);
        let rest = text.get(begin..)?;
        let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c)).map(String::from).unwrap_or_default();
        let behind = rest.strip_prefix(&format!("{quote}{old}{quote}"))?;
        return Some(format!("{}{quote}{mode}{quote}{behind}", text.get(..begin)?));
    }
    match field.value.fields().first() {
        // Beside other fields, before the first: in a line of its own, or within braces.
        Some(first) => {
            let begin = offset(text, first.at)?;
            let value = offset(text, field.value.at)?;
            let (head, tail) = (text.get(..begin)?, text.get(begin..)?);
            if text.get(value..)?.starts_with('{') {
                return Some(format!("{head}\"mode\": \"{mode}\", {tail}"));
            }
            Some(format!("{head}mode: {mode}\n{}{tail}", " ".repeat(first.at.column.checked_sub(1)?)))
        }
        // `outboundTrafficPolicy: {}`, or nothing behind it.
        None => {
            let begin = offset(text, field.at)?;
            let colon = begin + text.get(begin..)?.find(':')? + 1;
            let (head, tail) = (text.get(..colon)?, text.get(colon..)?);
            let empty =
                ["{}", "null", "~"].into_iter().find_map(|empty| tail.trim_start_matches(' ').strip_prefix(empty));
            Some(format!("{head} {{\"mode\": \"{mode}\"}}{}", empty.unwrap_or(tail)))
        }
    }
}

/// As the first thing of an object in braces, otherwise at the end of the text, as deep as its other fields.
fn with_new_field(text: &str, root: &Node, mode: &str) -> Option<String> {
    let Some(first) = root.fields().first() else {
        let head = if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") };
        return (root.value == document::Value::Null).then(|| format!("{head}{FIELD}:\n  mode: {mode}\n"));
    };
    let begin = offset(text, root.at)?;
    if let Some(tail) = text.get(begin..)?.strip_prefix('{') {
        return Some(format!("{}{{\"{FIELD}\": {{\"mode\": \"{mode}\"}}, {tail}", text.get(..begin)?));
    }
    let indent = " ".repeat(first.at.column.checked_sub(1)?);
    let line = if text.ends_with('\n') { "" } else { "\n" };
    Some(format!("{text}{line}{indent}{FIELD}:\n{indent}  mode: {mode}\n"))
}

/// Where in the text a position is, in bytes.
fn offset(text: &str, at: Position) -> Option<usize> {
    let mut begin = 0;
    for _ in 1..at.line {
        begin += text.get(begin..)?.find('\n')? + 1;
    }
    let line = text.get(begin..)?;
    let column = at.column.checked_sub(1)?;
    let within = line.char_indices().map(|(byte, _)| byte).chain([line.len()]).nth(column)?;
    Some(begin + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restricted(text: &str) -> String {
        edited(text, Mode::RegistryOnly).unwrap()
    }

    #[test]
    fn reads_a_mode_as_istio_does() {
        for (policy, mode) in [
            ("{mode: ALLOW_ANY}", "ALLOW_ANY"),
            ("{mode: REGISTRY_ONLY}", "REGISTRY_ONLY"),
            ("{}", "REGISTRY_ONLY"),
            ("{mode: ~}", "REGISTRY_ONLY"),
            ("{mode: 0}", "REGISTRY_ONLY"),
            ("{mode: 1}", "ALLOW_ANY"),
            ("{mode: OTHER}", "OTHER"),
        ] {
            assert_eq!(mode_of(&root_of(policy).unwrap()), mode, "{policy}");
        }
    }

    #[test]
    fn replaces_the_mode_where_it_stands() {
        for (before, after) in [
            (
                "a: 1\noutboundTrafficPolicy:\n  mode: ALLOW_ANY # for now\nb: 2\n",
                "a: 1\noutboundTrafficPolicy:\n  mode: REGISTRY_ONLY # for now\nb: 2\n",
            ),
            ("outboundTrafficPolicy: {mode: 'ALLOW_ANY'}", "outboundTrafficPolicy: {mode: 'REGISTRY_ONLY'}"),
            (
                r#"{"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "a": 1}"#,
                r#"{"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "a": 1}"#,
            ),
            (
                "ü: \"ä\"\r\noutboundTrafficPolicy:\r\n  mode: ALLOW_ANY\r\n",
                "ü: \"ä\"\r\noutboundTrafficPolicy:\r\n  mode: REGISTRY_ONLY\r\n",
            ),
        ] {
            assert_eq!(restricted(before), after, "{before}");
        }
    }

    #[test]
    fn adds_the_mode_beside_other_fields() {
        for (before, after) in [
            (
                "outboundTrafficPolicy:\n    # of the gateway\n    egressProxy: {host: a}\n",
                "outboundTrafficPolicy:\n    # of the gateway\n    mode: REGISTRY_ONLY\n    egressProxy: {host: a}\n",
            ),
            (
                "outboundTrafficPolicy: {egressProxy: {host: a}}\n",
                "outboundTrafficPolicy: {\"mode\": \"REGISTRY_ONLY\", egressProxy: {host: a}}\n",
            ),
            ("outboundTrafficPolicy: {}\na: 1\n", "outboundTrafficPolicy: {\"mode\": \"REGISTRY_ONLY\"}\na: 1\n"),
            (
                "outboundTrafficPolicy: # unset\na: 1\n",
                "outboundTrafficPolicy: {\"mode\": \"REGISTRY_ONLY\"} # unset\na: 1\n",
            ),
        ] {
            assert_eq!(restricted(before), after, "{before}");
        }
    }

    #[test]
    fn adds_the_field_where_there_is_none() {
        for (before, after) in [
            ("", "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n"),
            ("# nothing yet", "# nothing yet\noutboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n"),
            (
                "# all\naccessLogFile: /dev/stdout\nb:\n- 1",
                "# all\naccessLogFile: /dev/stdout\nb:\n- 1\noutboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n",
            ),
            ("  a: 1\n  b: 2\n", "  a: 1\n  b: 2\n  outboundTrafficPolicy:\n    mode: REGISTRY_ONLY\n"),
            (r#"{"a": 1}"#, r#"{"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "a": 1}"#),
        ] {
            assert_eq!(restricted(before), after, "{before}");
        }
    }

    #[test]
    fn leaves_the_text_alone_where_nothing_changes() {
        let text = "outboundTrafficPolicy: {mode: \"REGISTRY_ONLY\"}   # so it is\n";
        assert_eq!(restricted(text), text);
    }

    #[test]
    fn refuses_what_it_would_change_more_of() {
        let by_hand = by_hand();
        for (text, problem) in [
            // The anchor's text is used elsewhere, too.
            ("a: &mode ALLOW_ANY\noutboundTrafficPolicy: {mode: *mode}\n", by_hand.as_str()),
            ("outboundTrafficPolicy:\n  mode: |\n    ALLOW_ANY\n", &by_hand),
            ("a: 1\n...\n", &by_hand),
            ("a: 1\n---\nb: 2\n", "there is more than one YAML document; keep one"),
            ("[a]\n", &by_hand),
        ] {
            assert_eq!(edited(text, Mode::RegistryOnly).unwrap_err(), problem, "{text}");
        }
        assert!(edited("a: [1\n", Mode::RegistryOnly).unwrap_err().starts_with("line "));
    }
}
