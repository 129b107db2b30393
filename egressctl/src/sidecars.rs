//! The sidecars that calls come from, and what each enforces: one policy for all that the configurations cannot tell apart.

use std::collections::HashMap;

use egress_filter::config::KnownNode;

use crate::access_log::UNKNOWN;
use crate::configuration::Configuration;
use crate::enforced::{Enforced, Refused};

/// What the sidecars of a mesh enforce by some configurations.
#[derive(Debug)]
pub struct Sidecars<'a> {
    configurations: Vec<Configuration<'a>>,
    root_namespace: String,
    enforced: Vec<Enforced<'a>>,
    /// Which of [`Self::enforced`], by what of the configurations counts.
    by_parts: HashMap<Vec<bool>, usize>,
    /// The same by namespace and workload.
    by_node: HashMap<(String, String), usize>,
}

/// How many namespaces and workloads are remembered: they come from the log, and may be made up.
const NODES: usize = 100_000;

impl<'a> Sidecars<'a> {
    /// Sidecars with these configurations.
    ///
    /// # Errors
    ///
    /// A configuration that the filter would refuse.
    pub fn new(configurations: Vec<Configuration<'a>>, root_namespace: &str) -> std::result::Result<Self, Refused> {
        for configuration in &configurations {
            if let Err(invalid) = configuration.policy(&KnownNode::default()) {
                return Err(Refused::of(configuration, &invalid));
            }
        }
        Ok(Sidecars {
            configurations,
            root_namespace: root_namespace.to_owned(),
            enforced: Vec::new(),
            by_parts: HashMap::new(),
            by_node: HashMap::new(),
        })
    }

    /// What the sidecar of a workload enforces.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn of(&mut self, namespace: &str, workload: &str) -> std::result::Result<&Enforced<'a>, Refused> {
        let key = (namespace.to_owned(), workload.to_owned());
        let position = match self.by_node.get(&key) {
            Some(position) => *position,
            None => {
                let position = self.find(namespace, workload)?;
                if self.by_node.len() >= NODES {
                    self.by_node.clear();
                }
                self.by_node.insert(key, position);
                position
            }
        };
        self.enforced.get(position).ok_or_else(|| Refused { problems: Vec::new() })
    }

    /// All that were asked for so far.
    pub fn iter(&self) -> impl Iterator<Item = &Enforced<'a>> {
        self.enforced.iter()
    }

    /// The configurations.
    #[must_use]
    pub fn configurations(&self) -> &[Configuration<'a>] {
        &self.configurations
    }

    /// Whether labels decide what some sidecars enforce: logs do not tell them.
    #[must_use]
    pub fn go_by_labels(&self) -> bool {
        let by_override = |one: &Configuration<'_>| one.criteria().iter().any(|criteria| !criteria.labels.is_empty());
        self.configurations.iter().any(|one| !one.selector().is_empty() || by_override(one))
    }

    fn find(&mut self, namespace: &str, workload: &str) -> std::result::Result<usize, Refused> {
        let known = |text: &str| (text != UNKNOWN).then(|| text.to_owned());
        let node = KnownNode {
            namespace: known(namespace),
            workload: known(workload),
            labels: std::collections::BTreeMap::new(),
        };
        let mut parts = Vec::new();
        for one in &self.configurations {
            parts.push(one.is_on(&node, &self.root_namespace));
            parts.extend((0..one.overrides().len()).map(|position| one.matches(position, &node)));
        }
        if let Some(position) = self.by_parts.get(&parts) {
            return Ok(*position);
        }
        self.enforced.push(Enforced::of(&self.configurations, &node, &self.root_namespace)?);
        let position = self.enforced.len() - 1;
        self.by_parts.insert(parts, position);
        Ok(position)
    }
}
