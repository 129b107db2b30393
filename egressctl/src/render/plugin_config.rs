//! The plugin configuration: what `--base` has, then what ServiceEntries and Sidecars add to it.
//!
//! What the base says stays as it is; a mode that stands there wins over those of Sidecars.

use std::collections::BTreeMap;
use std::path::Path;

use egress_filter::config::KnownNode;
use egress_filter::name::HostName;
use egress_filter::policy::Policy;
use serde_json::{Map, Value, json};

use super::audience::{Audiences, Scope, View};
use super::finding::Findings;
use crate::configuration::Configuration;
use crate::failure::{Failure, Result};
use crate::istio_sidecar::{OutboundMode, Sidecar};
use crate::object::objects;
use crate::source;

/// What the filter takes for inside the mesh where nothing else is said.
const DEFAULT_DOMAIN: &str = "cluster.local";

const REGISTRY_ONLY: &str = "REGISTRY_ONLY";
const ALLOW_ANY: &str = "ALLOW_ANY";

/// The order in which fields are written; others follow as the base has them.
const FIELDS: &[&str] = &["outboundTrafficPolicy", "enforcement", "registry", "deny", "overrides", "mesh"];

/// A plugin configuration in the making.
#[derive(Debug, Default)]
pub struct PluginConfig {
    fields: Map<String, Value>,
    /// The mode that the base sets.
    pinned_mode: Option<&'static str>,
}

impl PluginConfig {
    /// The configuration in a file: bare, or in WasmPlugins that all have the same.
    ///
    /// # Errors
    ///
    /// There is none, there are several, or the filter would refuse it.
    pub fn from_base(path: &Path) -> Result<Self> {
        let documents = source::read(&[path.to_owned()])?;
        let configurations: Vec<Configuration<'_>> =
            objects(&documents).into_iter().filter_map(Configuration::of).collect();
        let fail = |message: &str| Err(Failure::new(format!("--base {}: {message}", path.display())));
        let Some(first) = configurations.first() else {
            return fail(
                "no plugin configuration in it; write fields such as `deny` there, without an object around them",
            );
        };
        if configurations.iter().any(|other| other.json() != first.json()) {
            return fail("several plugin configurations in it; keep one");
        }
        if let Err(invalid) = first.policy(&KnownNode::default()) {
            let mut text = "the filter refuses --base:".to_owned();
            for problem in invalid.problems() {
                let location = first.object.document.locate(first.find(problem.path()));
                text.push_str(&format!("\n{location}: {problem}"));
            }
            return Err(Failure::new(text));
        }
        match first.node().to_value() {
            Value::Object(fields) => {
                let mode = fields.get("outboundTrafficPolicy").and_then(|policy| policy.get("mode"));
                let pinned_mode = [REGISTRY_ONLY, ALLOW_ANY].into_iter().find(|known| mode == Some(&(*known).into()));
                Ok(PluginConfig { fields, pinned_mode })
            }
            _ => Ok(PluginConfig::default()),
        }
    }

    /// Sets `enforcement`.
    pub fn set_enforcement(&mut self, enforcement: &str) {
        self.fields.insert("enforcement".to_owned(), enforcement.into());
    }

    /// Sets the mode, and those of namespaces that have another, by their Sidecars.
    pub fn add_modes(&mut self, view: &View<'_>, scope: &Scope<'_>, findings: &mut Findings) {
        if let Some(mode) = self.pinned_mode {
            warn_of_pinned(mode, view, scope, findings);
            return;
        }
        warn_of_dynamic_dns(view, scope, findings);
        let mode_of = |namespace: &str| mode(view.sidecars.default_of(namespace));
        let everywhere = mode_of(scope.any_namespace());
        let mut others: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for namespace in scope.namespaces() {
            let mode = mode_of(namespace);
            if mode != everywhere {
                others.entry(mode).or_default().push(namespace);
            }
        }
        self.fields.insert("outboundTrafficPolicy".to_owned(), json!({"mode": everywhere}));
        for (mode, namespaces) in others {
            self.push(
                "overrides",
                json!({"match": {"namespaces": namespaces}, "outboundTrafficPolicy": {"mode": mode}}),
            );
        }
    }

    /// Adds what who may see.
    pub fn add_registry(&mut self, view: &View<'_>, audiences: &Audiences<'_>) {
        self.extend("registry", view.render(&audiences.everyone));
        for (namespaces, pieces) in &audiences.namespaces {
            self.push("overrides", json!({"match": {"namespaces": namespaces}, "registry": view.render(pieces)}));
        }
    }

    /// Adds what workloads see and which mode they have by Sidecars of their own, and warns of what cannot be said.
    pub fn add_workloads(&mut self, view: &View<'_>, audiences: &Audiences<'_>, findings: &mut Findings) {
        let pinned = self.pinned_mode;
        for (position, workloads) in audiences.workloads.iter().enumerate() {
            let sidecar = workloads.sidecar;
            let own = pinned.unwrap_or_else(|| mode(Some(sidecar)));
            let of_namespace = pinned.unwrap_or_else(|| mode(view.sidecars.default_of(sidecar.namespace)));
            let labels = sidecar.selector.clone().unwrap_or_default();
            let mut fields = Map::new();
            fields.insert("match".to_owned(), json!({"namespaces": [sidecar.namespace], "labels": labels}));
            if own != of_namespace {
                fields.insert("outboundTrafficPolicy".to_owned(), json!({"mode": own}));
            }
            if !workloads.more.is_empty() {
                fields.insert("registry".to_owned(), view.render(&workloads.more).into());
            }
            if fields.len() > 1 {
                self.push("overrides", Value::Object(fields));
            }
            if own != ALLOW_ANY {
                let counting_first = audiences.workloads.get(position + 1..).unwrap_or_default();
                workloads.warn(counting_first, view, findings);
            }
        }
    }

    /// Adds domains of the mesh: `named` in place of the default, then `internal`. Returns all that there are then.
    pub fn add_domains(&mut self, named: &[String], internal: &[String]) -> Vec<HostName<'static>> {
        let given = self.fields.get("mesh").and_then(|mesh| mesh.get("domains")).and_then(Value::as_array);
        let mut domains: Vec<String> =
            given.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let is_given = given.is_some();
        if !is_given && named.is_empty() {
            domains.push(DEFAULT_DOMAIN.to_owned());
        }
        let mut names: Vec<HostName<'static>> = domains.iter().filter_map(|domain| host_name(domain)).collect();
        let before = domains.len();
        for domain in named.iter().chain(internal) {
            if let Some(name) = host_name(domain).filter(|name| !names.contains(name)) {
                names.push(name);
                domains.push(domain.clone());
            }
        }
        if domains.len() > before {
            let mesh = self.fields.entry("mesh").or_insert_with(|| json!({}));
            if let Value::Object(mesh) = mesh {
                mesh.insert("domains".to_owned(), domains.into());
            }
        }
        names
    }

    /// The configuration, if the filter takes it.
    ///
    /// # Errors
    ///
    /// What the filter refuses.
    pub fn finish(mut self) -> Result<Value> {
        let mut fields = Map::new();
        for field in FIELDS {
            if let Some(value) = self.fields.shift_remove(*field) {
                fields.insert((*field).to_owned(), value);
            }
        }
        fields.append(&mut self.fields);
        let value = Value::Object(fields);
        match Policy::from_json(value.to_string().as_bytes(), &KnownNode::default()) {
            Ok(_) => Ok(value),
            Err(invalid) => Err(Failure::new(format!("the filter would refuse what was rendered:\n{invalid}"))),
        }
    }

    fn push(&mut self, field: &str, value: Value) {
        self.extend(field, vec![value]);
    }

    /// Adds to a list; a base that the filter takes has nothing but a list there.
    fn extend(&mut self, field: &str, values: Vec<Value>) {
        if let Value::Array(list) = self.fields.entry(field).or_insert_with(|| json!([])) {
            list.extend(values);
        }
    }
}

fn host_name(text: &str) -> Option<HostName<'static>> {
    HostName::from_config(text).ok().map(HostName::into_owned)
}

/// As the filter names it. Where no Sidecar says, the mesh's own setting counts in Istio, which is not known here: closed.
fn mode(sidecar: Option<&Sidecar<'_>>) -> &'static str {
    match sidecar.and_then(|sidecar| sidecar.mode) {
        Some(OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns) => ALLOW_ANY,
        Some(OutboundMode::RegistryOnly) | None => REGISTRY_ONLY,
    }
}

/// The Sidecars that count for someone in the scope.
fn counting<'v>(view: &'v View<'_>, scope: &Scope<'_>) -> Vec<&'v Sidecar<'v>> {
    let mut sidecars: Vec<&Sidecar<'_>> = Vec::new();
    for namespace in scope.namespaces().into_iter().chain([scope.any_namespace()]) {
        let of_namespace = view.sidecars.default_of(namespace).into_iter();
        for sidecar in of_namespace.chain(view.sidecars.for_workloads_of(namespace)) {
            if !sidecars.iter().any(|known| std::ptr::eq(*known, sidecar)) {
                sidecars.push(sidecar);
            }
        }
    }
    sidecars
}

fn warn_of_pinned(pinned: &str, view: &View<'_>, scope: &Scope<'_>, findings: &mut Findings) {
    for sidecar in counting(view, scope) {
        if sidecar.mode.is_some() && mode(Some(sidecar)) != pinned {
            let message = format!("not rendered: --base says {pinned}; leave the mode out there to have the Sidecars'");
            warn_of_mode(sidecar, &message, findings);
        }
    }
}

fn warn_of_dynamic_dns(view: &View<'_>, scope: &Scope<'_>, findings: &mut Findings) {
    for sidecar in counting(view, scope) {
        if sidecar.mode == Some(OutboundMode::AllowAnyDynamicDns) {
            warn_of_mode(sidecar, "rendered as ALLOW_ANY: the filter looks up no names", findings);
        }
    }
}

fn warn_of_mode(sidecar: &Sidecar<'_>, message: &str, findings: &mut Findings) {
    let node = sidecar.object.node.find("spec.outboundTrafficPolicy.mode");
    findings.warn(sidecar.object, node, "spec.outboundTrafficPolicy.mode", message);
}
