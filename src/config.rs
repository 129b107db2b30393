//! The plugin configuration: JSON to [`Policy`], with every problem found in one pass.
//!
//! The text is read once and each host goes straight into the registry: nothing is held twice, since a wasm memory never
//! shrinks. Overrides are evaluated here, against the node that the sidecar runs as, and cost nothing afterwards; those
//! that do not match are checked all the same, so a configuration is valid on every sidecar or on none.
//!
//! Nothing here reads a clock or anything else that differs from worker to worker: the same bytes on the same node give
//! the same answer (an Envoy worker whose plugin refuses what the others took would let everything pass).

use std::time::Duration;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use crate::address::{Cidr, CidrTable};
use crate::name::{HostName, InvalidName};
use crate::policy::{Enforcement, MetricsOptions, Mode, Policy};
use crate::registry::RegistryBuilder;

mod duration;
mod entry;
mod problem;
mod reader;

use entry::EntryList;
pub use problem::{InvalidConfig, Problem};
use reader::{Context, Flag, Name, Names, Number, Read, Step, TWICE, Text, Value};

/// The fields of a configuration.
pub const FIELDS: &[&str] = &[
    "outboundTrafficPolicy",
    "enforcement",
    "registry",
    "deny",
    "overrides",
    "mesh",
    "spoofProtection",
    "denyMessage",
    "tcp",
    "metrics",
];

/// The longest `denyMessage`, in bytes: it travels in a header of a gRPC reply.
pub const MAX_DENY_MESSAGE: usize = 1024;

/// The largest `metrics.unlistedHosts`: each is a series that Envoy keeps for as long as the VM lives.
pub const MAX_UNLISTED_HOSTS: u32 = 10_000;

/// The bounds of `tcp.inspectionTimeout`.
pub const INSPECTION_TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(600));

/// The node that a sidecar runs as: what `overrides[].match` is compared with.
pub trait Node {
    /// The workload's namespace.
    fn namespace(&self) -> Option<String>;
    /// The workload's name: that of its Deployment or StatefulSet.
    fn workload(&self) -> Option<String>;
    /// The value of a label of the workload.
    fn label(&self, key: &str) -> Option<String>;
}

/// A [`Node`] that is known beforehand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNode {
    /// See [`Node::namespace`].
    pub namespace: Option<String>,
    /// See [`Node::workload`].
    pub workload: Option<String>,
    /// See [`Node::label`].
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Node for KnownNode {
    fn namespace(&self) -> Option<String> {
        self.namespace.clone()
    }

    fn workload(&self) -> Option<String> {
        self.workload.clone()
    }

    fn label(&self, key: &str) -> Option<String> {
        self.labels.get(key).cloned()
    }
}

impl Policy {
    /// Reads a plugin configuration as the sidecar of `node` enforces it. Empty text is `{}`.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`] with every problem that was found.
    pub fn from_json(json: &[u8], node: &impl Node) -> Result<Policy, InvalidConfig> {
        let mut cx = Context::default();
        let mut draft = Draft::default();
        match std::str::from_utf8(json) {
            Ok(text) if text.trim_ascii().is_empty() => {}
            Ok(text) => read_document(&mut cx, text, &mut draft, node),
            Err(error) => cx.complain(&format_args!("not valid JSON: {error}")),
        }
        cx.finish()?;
        Ok(draft.into_policy())
    }
}

/// Bytes of configuration that come to one host, as a guess on the low side: a table that grows once is cheap, one that is
/// too large stays.
const BYTES_PER_HOST: usize = 64;

fn read_document(cx: &mut Context, json: &str, draft: &mut Draft, node: &impl Node) {
    draft.registry.expect(json.len() / BYTES_PER_HOST);
    let mut overrides: Option<&RawValue> = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let root = Root { draft, overrides: &mut overrides };
    let read = Value { cx, read: root }.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Err(error) = read {
        cx.not_json(0, &error);
        return;
    }
    if let Some(overrides) = overrides {
        cx.enter(Step::Field("overrides"));
        if let Err(error) = (Value { cx, read: Overrides { draft, node } }).deserialize(overrides) {
            cx.not_json(1, &error);
        }
        cx.leave();
    }
}

/// A [`Policy`] in the making.
#[derive(Default)]
struct Draft {
    policy: Policy,
    registry: RegistryBuilder,
    deny: RegistryBuilder,
}

impl Draft {
    fn into_policy(self) -> Policy {
        Policy { registry: self.registry.finish(), deny: self.deny.finish(), ..self.policy }
    }
}

/// The whole document. Its overrides are kept for later: they add to the registry, which may stand behind them.
struct Root<'a, 'de> {
    draft: &'a mut Draft,
    overrides: &'a mut Option<&'de RawValue>,
}

impl<'de> Read<'de> for Root<'_, 'de> {
    const EXPECTED: &'static str = "an object";

    /// No configuration, as an empty text is.
    fn null(self, _: &mut Context) {}

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let Draft { policy, registry, deny } = self.draft;
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, FIELDS, &mut seen)? {
            match field {
                "outboundTrafficPolicy" => cx.value(&mut map, field, OutboundTrafficPolicy(&mut policy.mode))?,
                "enforcement" => cx.value(&mut map, field, enforcement(&mut policy.enforcement))?,
                "registry" => cx.value(&mut map, field, EntryList::registry(registry))?,
                "deny" => cx.value(&mut map, field, EntryList::deny(deny))?,
                "overrides" => *self.overrides = Some(map.next_value()?),
                "mesh" => cx.value(&mut map, field, MeshFields(&mut policy.mesh))?,
                "spoofProtection" => cx.value(&mut map, field, Flag(&mut policy.spoof_protection))?,
                "denyMessage" => cx.value(&mut map, field, Text(&mut deny_message(&mut policy.deny_message)))?,
                "tcp" => cx.value(&mut map, field, Tcp(&mut policy.inspection_timeout))?,
                _ => cx.value(&mut map, field, Metrics(&mut policy.metrics))?,
            }
        }
        Ok(())
    }
}

struct OutboundTrafficPolicy<'a>(&'a mut Mode);

impl<'de> Read<'de> for OutboundTrafficPolicy<'_> {
    const EXPECTED: &'static str = "an object such as {\"mode\": \"REGISTRY_ONLY\"}";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["mode"], &mut seen)? {
            let known = [("REGISTRY_ONLY", Mode::RegistryOnly), ("ALLOW_ANY", Mode::AllowAny)];
            cx.value(&mut map, field, Name(&known, &mut *self.0))?;
        }
        Ok(())
    }
}

fn enforcement(target: &mut Enforcement) -> Name<'_, Enforcement> {
    Name(&[("ENFORCE", Enforcement::Enforce), ("REPORT", Enforcement::Report)], target)
}

fn deny_message(target: &mut String) -> impl FnMut(&mut Context, &str) {
    |cx, text| {
        if text.len() > MAX_DENY_MESSAGE {
            cx.problem(text, &format!("longer than {MAX_DENY_MESSAGE} bytes; say it shorter, with a link"));
        } else if text.chars().any(char::is_control) {
            cx.problem(text, &"must be one line; remove line breaks and other control characters");
        } else {
            text.clone_into(target);
        }
    }
}

struct MeshFields<'a>(&'a mut crate::mesh::Mesh);

impl<'de> Read<'de> for MeshFields<'_> {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mesh = self.0;
        let mut seen = 0;
        while let Some(field) =
            cx.field(&mut map, &["domains", "addresses", "egressGateways", "trustRegistry"], &mut seen)?
        {
            match field {
                "domains" => cx.value(
                    &mut map,
                    field,
                    HostNames(&mut mesh.domains, "a domain holds every name below it; leave the `*.` out"),
                )?,
                "addresses" => {
                    let mut prefixes = Vec::new();
                    cx.value(
                        &mut map,
                        field,
                        Names(
                            "IP addresses and CIDRs",
                            &mut |cx: &mut Context, text: &str| match text.parse::<Cidr>() {
                                Ok(cidr) => prefixes.push((cidr, 0)),
                                Err(invalid) => cx.problem(text, &invalid),
                            },
                        ),
                    )?;
                    mesh.addresses = CidrTable::new(prefixes);
                }
                "egressGateways" => {
                    cx.value(
                        &mut map,
                        field,
                        HostNames(&mut mesh.egress_gateways, "name each gateway's host in full"),
                    )?;
                }
                _ => cx.value(&mut map, field, Flag(&mut mesh.trust_registry))?,
            }
        }
        Ok(())
    }
}

/// A list of names in place of the one that is there, and what to say to a wildcard.
struct HostNames<'a>(&'a mut Vec<HostName<'static>>, &'static str);

impl<'de> Read<'de> for HostNames<'_> {
    const EXPECTED: &'static str = "a list of host names";

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, seq: A) -> Result<(), A::Error> {
        self.0.clear();
        let mut take = |cx: &mut Context, text: &str| match HostName::from_config(text) {
            Ok(name) => self.0.push(name.into_owned()),
            Err(InvalidName::Character('*')) => cx.problem(text, &self.1),
            Err(invalid) => cx.problem(text, &invalid),
        };
        Names("host names", &mut take).list(cx, seq)
    }
}

struct Tcp<'a>(&'a mut Duration);

impl<'de> Read<'de> for Tcp<'_> {
    const EXPECTED: &'static str = "an object such as {\"inspectionTimeout\": \"5s\"}";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let (least, most) = INSPECTION_TIMEOUT_BOUNDS;
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["inspectionTimeout"], &mut seen)? {
            let target = &mut *self.0;
            cx.value(
                &mut map,
                field,
                Text(&mut |cx: &mut Context, text: &str| match duration::parse(text) {
                    Some(duration) if (least..=most).contains(&duration) => *target = duration,
                    Some(_) => cx.problem(text, &"must be from 1ms to 10m"),
                    None => cx.problem(text, &"not a duration; use a form such as \"5s\", \"500ms\" or \"1m30s\""),
                }),
            )?;
        }
        Ok(())
    }
}

struct Metrics<'a>(&'a mut MetricsOptions);

impl<'de> Read<'de> for Metrics<'_> {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["unlistedHosts", "responses"], &mut seen)? {
            match field {
                "unlistedHosts" => {
                    cx.value(&mut map, field, Number(0..=MAX_UNLISTED_HOSTS, &mut self.0.unlisted_hosts))?;
                }
                _ => cx.value(&mut map, field, Flag(&mut self.0.responses))?,
            }
        }
        Ok(())
    }
}

/// The list of overrides: later scalars win, lists add up.
struct Overrides<'a, N> {
    draft: &'a mut Draft,
    node: &'a N,
}

impl<'de, N: Node> Read<'de> for Overrides<'_, N> {
    const EXPECTED: &'static str = "a list of objects";

    fn list<A: SeqAccess<'de>>(self, cx: &mut Context, mut seq: A) -> Result<(), A::Error> {
        cx.enter(Step::Index(0));
        while let Some(raw) = seq.next_element::<&RawValue>()? {
            // The match may stand behind what it governs, so it is read first, on its own.
            let mut matches = true;
            let looked_at = OverrideMatch { matches: &mut matches, node: self.node };
            let mut unheard = Context::default();
            let read = Value { cx: &mut unheard, read: looked_at }.deserialize(raw);
            let mut unused = Draft::default();
            let draft = if matches && read.is_ok() { &mut *self.draft } else { &mut unused };
            if let Err(error) = (Value { cx, read: Override { draft, node: self.node } }).deserialize(raw) {
                cx.not_json(2, &error);
            }
            cx.next_element();
        }
        cx.leave();
        Ok(())
    }
}

/// Reads only `match`.
struct OverrideMatch<'a, N> {
    matches: &'a mut bool,
    node: &'a N,
}

impl<'de, N: Node> Read<'de> for OverrideMatch<'_, N> {
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["match"], &mut seen)? {
            cx.value(&mut map, field, Match { matches: self.matches, node: self.node })?;
        }
        Ok(())
    }
}

struct Override<'a, N> {
    draft: &'a mut Draft,
    node: &'a N,
}

impl<'de, N: Node> Read<'de> for Override<'_, N> {
    const EXPECTED: &'static str = "an object";

    fn null(self, cx: &mut Context) {
        cx.complain(&"nothing; expected an object");
    }

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let Draft { policy, registry, deny } = self.draft;
        let mut seen = 0;
        while let Some(field) =
            cx.field(&mut map, &["match", "outboundTrafficPolicy", "enforcement", "registry", "deny"], &mut seen)?
        {
            match field {
                "match" => cx.value(&mut map, field, Match { matches: &mut false, node: self.node })?,
                "outboundTrafficPolicy" => cx.value(&mut map, field, OutboundTrafficPolicy(&mut policy.mode))?,
                "enforcement" => cx.value(&mut map, field, enforcement(&mut policy.enforcement))?,
                "registry" => cx.value(&mut map, field, EntryList::registry(registry))?,
                _ => cx.value(&mut map, field, EntryList::deny(deny))?,
            }
        }
        Ok(())
    }
}

/// All parts that are given must match; an empty match matches every sidecar.
struct Match<'a, N> {
    matches: &'a mut bool,
    node: &'a N,
}

impl<'de, N: Node> Read<'de> for Match<'_, N> {
    const EXPECTED: &'static str = "an object";

    fn null(self, cx: &mut Context) {
        cx.complain(&"nothing; to match every sidecar, write {} or leave the field out");
    }

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let Match { matches, node } = self;
        *matches = true;
        let mut seen = 0;
        while let Some(field) = cx.field(&mut map, &["namespaces", "workloads", "labels"], &mut seen)? {
            if field == "labels" {
                cx.value(&mut map, field, Labels { matches, node })?;
                continue;
            }
            let own = if field == "namespaces" { node.namespace() } else { node.workload() };
            let mut listed = false;
            cx.value(
                &mut map,
                field,
                Names("names", &mut |_: &mut Context, text: &str| {
                    listed |= own.as_deref() == Some(text);
                }),
            )?;
            // A list that is given and empty matches no sidecar: a template that came out empty must open nothing.
            *matches &= listed;
        }
        Ok(())
    }
}

struct Labels<'a, N> {
    matches: &'a mut bool,
    node: &'a N,
}

impl<'de, N: Node> Read<'de> for Labels<'_, N> {
    const EXPECTED: &'static str = "an object of label names and values";

    fn object<A: MapAccess<'de>>(self, cx: &mut Context, mut map: A) -> Result<(), A::Error> {
        let mut seen: Vec<String> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            let own = self.node.label(&key);
            cx.enter(Step::Key(key.clone()));
            if seen.contains(&key) {
                cx.complain(&TWICE);
            }
            seen.push(key);
            let mut same = false;
            let mut compare = |_: &mut Context, text: &str| same = own.as_deref() == Some(text);
            let read = map.next_value_seed(Value { cx, read: Text(&mut compare) });
            cx.leave();
            *self.matches &= same;
            read?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
