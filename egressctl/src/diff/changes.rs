//! Changes in reach, put together from single answers: those of many ports and sidecars in one line.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::probes::{Port, Probes};

/// One change, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What changes.
    #[serde(flatten)]
    pub key: Key,
    /// Such as `443/TLS, other ports/TLS`.
    pub ports: String,
    /// The reasons before.
    pub old: BTreeSet<String>,
    /// The reasons afterwards.
    pub new: BTreeSet<String>,
    /// For which sidecars.
    pub sidecars: Vec<String>,
}

/// What is told in lines of their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Which way; what is reached no longer comes first.
    pub change: Direction,
    /// The pattern, the prefix, or what is neither.
    pub host: String,
    /// Only when what has an end has ended.
    pub later: bool,
}

/// Which way reach changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It is reached no longer.
    Removed,
    /// It was not reached before.
    Added,
}

/// Single answers, by what they tell and for which sidecar.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<Key, BTreeMap<usize, Ports>>);

/// Ports, each with a protocol and with the reasons before and afterwards.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ports(BTreeMap<(Port, &'static str), [String; 2]>);

impl Gathered {
    /// Adds one answer for one sidecar of [`Probes::nodes`].
    pub fn add(&mut self, key: Key, node: usize, port: Port, protocol: &'static str, reasons: [String; 2]) {
        self.0.entry(key).or_default().entry(node).or_default().0.insert((port, protocol), reasons);
    }

    /// All of it: a line for each change of the same ports, with all sidecars that have it.
    #[must_use]
    pub fn changes(self, probes: &Probes) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, nodes) in self.0 {
            let mut by_ports: BTreeMap<Ports, Vec<usize>> = BTreeMap::new();
            for (node, ports) in nodes {
                by_ports.entry(ports).or_default().push(node);
            }
            changes.extend(by_ports.into_iter().map(|(ports, nodes)| Change {
                key: key.clone(),
                ports: ports.in_words(probes),
                old: ports.0.values().map(|[old, _]| old.clone()).collect(),
                new: ports.0.values().map(|[_, new]| new.clone()).collect(),
                sidecars: sidecars(&nodes, probes),
            }));
        }
        changes
    }
}

impl Ports {
    /// `443/TLS, 80/HTTP`; `any port` if all of them are there; protocols left out where all are.
    fn in_words(&self, probes: &Probes) -> String {
        let protocols: BTreeSet<&str> = self.0.keys().map(|(_, protocol)| *protocol).collect();
        let is_everywhere = |protocol: &&str| probes.ports.iter().all(|port| self.0.contains_key(&(*port, *protocol)));
        if protocols.iter().all(is_everywhere) {
            let mut each = protocols.iter();
            return match (each.next(), each.next()) {
                (Some(only), None) => format!("any port/{only}"),
                _ => "any port".to_owned(),
            };
        }
        let of_port = |port: &Port| {
            let own: Vec<&str> =
                self.0.keys().filter(|(other, _)| other == port).map(|(_, protocol)| *protocol).collect();
            let name = match port {
                Port::Named(number) => number.to_string(),
                Port::Other(_) => "other ports".to_owned(),
            };
            (!own.is_empty()).then(|| format!("{name}/{}", own.join("+")))
        };
        probes.ports.iter().filter_map(of_port).collect::<Vec<_>>().join(", ")
    }
}

/// Names of sidecars; `every` for all of them.
#[must_use]
pub fn sidecars(nodes: &[usize], probes: &Probes) -> Vec<String> {
    if nodes.len() == probes.nodes.len() {
        return vec!["every".to_owned()];
    }
    let name = |position: &usize| match probes.nodes.get(*position) {
        Some((name, _)) if !name.is_empty() => name.clone(),
        _ => "any other".to_owned(),
    };
    nodes.iter().map(name).collect()
}
