//! Plugin configurations where users keep them: in WasmPlugins, in TrafficExtensions, or bare in a file.
//!
//! What a configuration means is `egress_filter`'s alone. This only hands it the text and finds its way back from what
//! that says (a path, the number of an entry) to a line of the user's file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use egress_filter::config::{InvalidConfig, KnownNode};
use egress_filter::policy::Policy;

use crate::document::Node;
use crate::object::{Kind, Object};

/// Which of the filter's two plugins a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// `egress-http`.
    Http,
    /// `egress-tcp`.
    Tcp,
}

impl Plugin {
    /// The root id, which is `pluginName` of a WasmPlugin.
    #[must_use]
    pub fn root_id(self) -> &'static str {
        match self {
            Plugin::Http => "egress-http",
            Plugin::Tcp => "egress-tcp",
        }
    }
}

/// A plugin configuration and what it is attached to.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// The WasmPlugin or TrafficExtension around it, or itself.
    pub object: Object<'a>,
    /// The `pluginConfig`; `None` where the object has none, which is an empty one.
    node: Option<&'a Node>,
    /// The plugin; `None` for a bare configuration, which is for both.
    pub plugin: Option<Plugin>,
}

/// The two lists of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// `registry`.
    Registry,
    /// `deny`.
    Deny,
}

impl List {
    /// The field.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            List::Registry => "registry",
            List::Deny => "deny",
        }
    }
}

/// An entry within a configuration.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The list that it stands in.
    pub list: List,
    /// Such as `overrides[1].registry[0]`.
    pub path: String,
    /// The entry.
    pub node: &'a Node,
    /// The override that it belongs to.
    pub in_override: Option<usize>,
}

static NOTHING: Node =
    Node { at: crate::document::Position { line: 0, column: 0 }, value: crate::document::Value::Null };

impl<'a> Configuration<'a> {
    /// The configuration in an object; `None` for other objects, for plugins that are not the filter's, and for those that
    /// are on no sidecar: attached to a gateway or waypoint by `targetRefs`, or what istiod makes of another object.
    #[must_use]
    pub fn of(object: Object<'a>) -> Option<Self> {
        if is_elsewhere(object) {
            return None;
        }
        match object.kind {
            Kind::Configuration => Some(Configuration { object, node: Some(object.node), plugin: None }),
            Kind::WasmPlugin => Self::of_plugin(object, object.spec()?),
            Kind::TrafficExtension => Self::of_plugin(object, object.spec()?.get("wasm")?),
            _ => None,
        }
    }

    /// WasmPlugins of kustomize patches have no `pluginName`: their configuration is for both.
    fn of_plugin(object: Object<'a>, wasm: &'a Node) -> Option<Self> {
        let node = wasm.get("pluginConfig");
        let named = match wasm.get("pluginName").and_then(Node::text) {
            Some("egress-http") => Some(Plugin::Http),
            Some("egress-tcp") => Some(Plugin::Tcp),
            Some(_) => return None,
            None => {
                node?;
                None
            }
        };
        Some(Configuration { object, node, plugin: named })
    }

    /// The configuration itself.
    #[must_use]
    pub fn node(&self) -> &'a Node {
        self.node.unwrap_or(&NOTHING)
    }

    /// Whether this is for what `plugin` decides.
    #[must_use]
    pub fn is_for(&self, plugin: Plugin) -> bool {
        self.plugin.is_none_or(|own| own == plugin)
    }

    /// The configuration's text, as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        match self.node {
            Some(node) => node.to_json(),
            None => String::new(),
        }
    }

    /// The policy that the sidecar of `node` enforces by it.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration; [`Configuration::find`] finds where they are.
    pub fn policy(&self, node: &KnownNode) -> Result<Policy, InvalidConfig> {
        Policy::from_json(self.json().as_bytes(), node)
    }

    /// What a path of the configuration names, or the nearest thing around it.
    #[must_use]
    pub fn find(&self, path: &str) -> &'a Node {
        let node = self.node().find(path);
        if node.at.line == 0 { self.object.node } else { node }
    }

    /// All entries, those of the overrides included, in the order in which the filter reads them.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        add_entries(self.node(), "", None, &mut entries);
        for (position, part) in self.overrides().iter().enumerate() {
            add_entries(part, &format!("overrides[{position}]."), Some(position), &mut entries);
        }
        entries
    }

    /// The entries of one list that count for the sidecar of `node`, so that [`egress_filter::registry::EntryId::position`] is a place in it.
    #[must_use]
    pub fn entries_for(&self, list: List, node: &KnownNode) -> Vec<Entry<'a>> {
        let matching: Vec<bool> = (0..self.overrides().len()).map(|position| self.matches(position, node)).collect();
        let counts = |entry: &Entry<'_>| entry.in_override.is_none_or(|position| matching.get(position) == Some(&true));
        self.entries().into_iter().filter(|entry| entry.list == list && counts(entry)).collect()
    }

    /// The overrides.
    #[must_use]
    pub fn overrides(&self) -> &'a [Node] {
        self.node().elements("overrides")
    }

    /// Whether an override matches the sidecar of `node`. The filter itself is asked: of a configuration with nothing but
    /// this override's `match` and one entry.
    #[must_use]
    pub fn matches(&self, position: usize, node: &KnownNode) -> bool {
        let Some(part) = self.overrides().get(position) else {
            return false;
        };
        let criteria = part.get("match").map_or_else(|| "{}".to_owned(), Node::to_json);
        let probe = format!(r#"{{"overrides":[{{"match":{criteria},"registry":[{{"hosts":["matches.test"]}}]}}]}}"#);
        Policy::from_json(probe.as_bytes(), node).is_ok_and(|policy| policy.registry().entries() == 1)
    }

    /// The values that overrides can tell sidecars apart by.
    #[must_use]
    pub fn criteria(&self) -> Vec<Criteria<'a>> {
        self.overrides().iter().map(|part| Criteria::of(part.get("match"))).collect()
    }

    /// The labels of `spec.selector`: which pods of the namespace the plugin is on. None is all.
    #[must_use]
    pub fn selector(&self) -> BTreeMap<&'a str, &'a str> {
        let labels = self.object.spec().and_then(|spec| spec.within(&["selector", "matchLabels"]));
        labels.map(texts).unwrap_or_default()
    }

    /// Whether the plugin is on the pods of `node`: mesh-wide in the root namespace, or in the pod's own, and selected.
    /// A bare configuration, and an object without a namespace, is.
    #[must_use]
    pub fn is_on(&self, node: &KnownNode, root_namespace: &str) -> bool {
        let namespace = self.object.namespace();
        let in_scope =
            namespace.is_empty() || namespace == root_namespace || node.namespace.as_deref() == Some(namespace);
        in_scope && self.selector().iter().all(|(key, value)| node.labels.get(*key).map(String::as_str) == Some(*value))
    }
}

/// The configurations among objects, which are `from` there.
///
/// # Errors
///
/// There is none.
pub fn configurations<'a>(objects: &[Object<'a>], from: &str) -> crate::failure::Result<Vec<Configuration<'a>>> {
    let configurations: Vec<_> = objects.iter().filter_map(|object| Configuration::of(*object)).collect();
    if !configurations.is_empty() {
        return Ok(configurations);
    }
    let mut kinds: Vec<String> =
        objects.iter().filter(|one| one.kind != Kind::Configuration).map(ToString::to_string).collect();
    kinds.truncate(3);
    let found = if kinds.is_empty() { String::new() } else { format!(", only {}", kinds.join(", ")) };
    Err(crate::failure::Failure::new(format!(
        "{from}: no configuration of the filter{found}; give a WasmPlugin with pluginName egress-http or egress-tcp, or its \
         pluginConfig alone"
    )))
}

/// What an override's `match` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria<'a> {
    /// `None`: any.
    pub namespaces: Option<Vec<&'a str>>,
    /// `None`: any.
    pub workloads: Option<Vec<&'a str>>,
    /// All of these.
    pub labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> Criteria<'a> {
    fn of(node: Option<&'a Node>) -> Self {
        let list = |key| node?.get(key).map(|list: &'a Node| list.list().iter().filter_map(Node::text).collect());
        Criteria {
            namespaces: list("namespaces"),
            workloads: list("workloads"),
            labels: node.and_then(|node| node.get("labels")).map(texts).unwrap_or_default(),
        }
    }
}

/// What istiod names the TrafficExtension that it makes of a WasmPlugin.
const TRANSLATED: &str = "~istio-translated-wasmplugin";

fn is_elsewhere(object: Object<'_>) -> bool {
    let spec = |key| object.spec().and_then(|spec| spec.get(key));
    let has_target = spec("targetRef").is_some() || spec("targetRefs").is_some_and(|list| !list.list().is_empty());
    let owners = object.node.within(&["metadata", "ownerReferences"]).map(Node::list).unwrap_or_default();
    let is_owned = owners.iter().any(|owner| owner.get("kind").and_then(Node::text) == Some("WasmPlugin"));
    has_target || is_owned || object.name().ends_with(TRANSLATED)
}

fn texts(node: &Node) -> BTreeMap<&str, &str> {
    node.fields().iter().filter_map(|field| Some((field.key.as_str(), field.value.text()?))).collect()
}

fn add_entries<'a>(part: &'a Node, prefix: &str, in_override: Option<usize>, entries: &mut Vec<Entry<'a>>) {
    for list in [List::Registry, List::Deny] {
        let field = list.field();
        let nodes = part.elements(field);
        entries.extend(nodes.iter().enumerate().map(|(position, node)| Entry {
            list,
            path: format!("{prefix}{field}[{position}]"),
            node,
            in_override,
        }));
    }
}

/// A name of a list's entry for people: its `name`, or its first host or address.
#[must_use]
pub fn entry_name(node: &Node) -> Cow<'_, str> {
    let first = |key| node.get(key).and_then(|list: &Node| list.list().first()).and_then(Node::text);
    let name = node.get("name").and_then(Node::text).or_else(|| first("hosts")).or_else(|| first("addresses"));
    name.map_or(Cow::Borrowed("unnamed"), Cow::Borrowed)
}
