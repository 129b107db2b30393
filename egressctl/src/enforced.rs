//! What one sidecar enforces: every plugin of the filter that is on it, each with the policy that its configuration makes
//! for this sidecar. What passes has passed all of them.

use std::cell::OnceCell;
use std::fmt;

use egress_filter::config::{InvalidConfig, KnownNode};
use egress_filter::policy::{Policy, Reason, Verdict};
use egress_filter::registry::EntryId;

use crate::call::Call;
use crate::configuration::{Configuration, Entry, List, Plugin};
use crate::source::Location;

/// The plugins on one sidecar.
#[derive(Debug)]
pub struct Enforced<'a> {
    /// The sidecar.
    pub node: KnownNode,
    /// The plugins, in the order in which their configurations were given.
    pub plugins: Vec<(Configuration<'a>, Policy)>,
    /// The entries that count for this sidecar, of each plugin and list, as soon as one is asked for.
    entries: Vec<[OnceCell<Vec<Entry<'a>>>; 2]>,
}

/// What one plugin says of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Which of [`Enforced::plugins`].
    pub plugin: usize,
    /// What is done.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The label `egress_host`: the pattern that decided, or what was asked for.
    pub host: String,
    /// The entry that decided.
    pub entry: Option<(List, EntryId)>,
}

/// A configuration that the filter refuses; it would keep the last good one, or fail closed.
#[derive(Debug)]
pub struct Refused {
    /// One line for each problem, with its place in the file.
    pub problems: Vec<(Location, String)>,
}

impl Refused {
    /// The problems of a configuration, located.
    #[must_use]
    pub fn of(configuration: &Configuration<'_>, invalid: &InvalidConfig) -> Self {
        let locate = |path: &str| configuration.object.document.locate(configuration.find(path));
        let problems = invalid.problems().iter().map(|problem| (locate(problem.path()), problem.to_string()));
        Refused { problems: problems.collect() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the filter would refuse this configuration")?;
        for (location, problem) in &self.problems {
            write!(f, "\n{location}: {problem}")?;
        }
        Ok(())
    }
}

impl From<Refused> for crate::failure::Failure {
    fn from(refused: Refused) -> Self {
        crate::failure::Failure::new(refused.to_string())
    }
}

impl<'a> Enforced<'a> {
    /// What is on the sidecar of `node`, of these configurations.
    ///
    /// # Errors
    ///
    /// The first configuration that the filter would refuse, with all its problems.
    pub fn of(configurations: &[Configuration<'a>], node: &KnownNode, root_namespace: &str) -> Result<Self, Refused> {
        let mut plugins = Vec::new();
        for configuration in configurations.iter().filter(|one| one.is_on(node, root_namespace)) {
            match configuration.policy(node) {
                Ok(policy) => plugins.push((*configuration, policy)),
                Err(invalid) => return Err(Refused::of(configuration, &invalid)),
            }
        }
        let entries = plugins.iter().map(|_| Default::default()).collect();
        Ok(Enforced { node: node.clone(), plugins, entries })
    }

    /// What each plugin that sees the call says of it.
    #[must_use]
    pub fn rulings(&self, call: &Call, now: i64) -> Vec<Ruling> {
        let seeing =
            self.plugins.iter().enumerate().filter(|(_, (configuration, _))| configuration.is_for(call.plugin));
        seeing.map(|(position, (_, policy))| rule(position, policy, call, now)).collect()
    }

    /// What becomes of the call: the strictest ruling. `None` if no plugin sees it: then it passes undecided.
    #[must_use]
    pub fn ruling(&self, call: &Call, now: i64) -> Option<Ruling> {
        strictest(self.rulings(call, now))
    }

    /// The entry that decided.
    #[must_use]
    pub fn entry(&self, ruling: &Ruling) -> Option<&Entry<'a>> {
        let (list, id) = ruling.entry?;
        let (configuration, _) = self.plugins.get(ruling.plugin)?;
        let [registry, deny] = self.entries.get(ruling.plugin)?;
        let entries = if list == List::Registry { registry } else { deny };
        entries.get_or_init(|| configuration.entries_for(list, &self.node)).get(id.position())
    }
}

/// The strictest of what several plugins say; of equals the first.
#[must_use]
pub fn strictest(rulings: impl IntoIterator<Item = Ruling>) -> Option<Ruling> {
    rulings.into_iter().min_by_key(|ruling| severity(ruling.verdict))
}

fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Denied => 0,
        Verdict::WouldDeny => 1,
        Verdict::Undecided => 2,
        Verdict::Allowed => 3,
    }
}

fn rule(plugin: usize, policy: &Policy, call: &Call, now: i64) -> Ruling {
    let destination = call.destination();
    let attributes = call.attributes(now);
    // Where no byte could change the answer, egress-tcp decides before there is one, and counts it by the address.
    let goes_unseen = call.plugin == Plugin::Tcp && !call.is_routed_by_name;
    let unseen = if goes_unseen { policy.decide_unseen(&attributes) } else { None };
    let decision = unseen.unwrap_or_else(|| policy.decide(&destination, &attributes));
    let list = if decision.reason == Reason::DenyListed { List::Deny } else { List::Registry };
    Ruling {
        plugin,
        verdict: decision.verdict,
        reason: decision.reason,
        host: policy.host_label(decision.counted).to_string(),
        entry: decision.entry.map(|entry| (list, entry)),
    }
}
