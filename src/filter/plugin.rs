//! A plugin instance: its policy, and how decisions are counted, logged and left for access logs.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;

use super::host::{self, Level, MetricKind};
use super::vm;
use crate::metrics;
use crate::policy::{Counted, Decision, Destination, Policy, Reason, Verdict, WireProtocol};
use crate::quiet::{INTERVAL, MAX_SUBJECTS, Say};

/// What the streams of one plugin instance share.
pub(super) struct Plugin {
    policy: Rc<Policy>,
    decisions: metrics::Decisions,
    /// The counters of decisions whose label is bounded, by [`counter_key`]: what is allowed makes no text.
    counters: RefCell<HashMap<u64, u32>>,
}

impl Plugin {
    /// `decisions` is what they are counted in.
    pub(super) fn new(policy: Rc<Policy>, decisions: metrics::Decisions) -> Self {
        Plugin { policy, decisions, counters: RefCell::default() }
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The label of a decision.
    pub(super) fn label(&self, counted: Counted<'_>) -> String {
        let label = metrics::label(self.policy.host_label(counted));
        if counted.is_unbounded() { vm::unlisted_label(label, self.policy.metrics().unlisted_hosts) } else { label }
    }

    /// Counts a decision; `label` is its label, if that was made already.
    pub(super) fn count(&self, decision: &Decision<'_>, protocol: WireProtocol, label: Option<&str>) {
        let key = counter_key(decision, protocol);
        if let Some(id) = key.and_then(|key| self.counters.borrow().get(&key).copied()) {
            host::add(id, 1);
            return;
        }
        let label = label.map_or_else(|| self.label(decision.counted), str::to_owned);
        let name = (self.decisions)(&label, protocol, decision.verdict, decision.reason);
        if let Some(id) = vm::metric(MetricKind::Counter, name) {
            host::add(id, 1);
            if let Some(key) = key {
                self.counters.borrow_mut().insert(key, id);
            }
        }
    }

    /// Leaves the decision for access logs, and says once in a while what is denied.
    pub(super) fn report(&self, decision: &Decision<'_>, destination: &Destination<'_>, port: Option<u16>) {
        let label = metrics::label(self.policy.host_label(decision.counted));
        host::set_filter_state("egress_verdict", decision.verdict.as_str());
        host::set_filter_state("egress_reason", decision.reason.as_str());
        host::set_filter_state("egress_host", &label);
        if !matches!(decision.verdict, Verdict::Denied | Verdict::WouldDeny) {
            return;
        }
        match vm::say((&label, decision.reason, decision.verdict)) {
            Say::No => {}
            Say::TooMany => host::log(
                Level::Warn,
                &format!(
                    "more than {MAX_SUBJECTS} hosts within {INTERVAL} s: further ones are counted, but not logged"
                ),
            ),
            Say::Yes => {
                // Envoy writes the plugin's name before it.
                let line = self.policy.denial(destination, port, decision.reason).to_string();
                let entry = if line.starts_with(&label) { "" } else { &format!(" [{label}]") };
                host::log(Level::Warn, &format!("{}{entry} {line}", decision.verdict.as_str()));
            }
        }
    }
}

/// Whether the access log's own fields say enough, so that nothing need be left for it.
pub(super) fn is_plain(reason: Reason) -> bool {
    matches!(reason, Reason::Listed | Reason::MeshInternal)
}

/// One number for all that tells two counters apart; `None` where that takes a text.
fn counter_key(decision: &Decision<'_>, protocol: WireProtocol) -> Option<u64> {
    Some(host_key(decision.counted, protocol)? << 16 | (decision.verdict as u64) << 8 | decision.reason as u64)
}

/// One number, below 2^48, for host label and protocol; `None` where the label is not bounded.
pub(super) fn host_key(counted: Counted<'_>, protocol: WireProtocol) -> Option<u64> {
    let (list, pattern) = match counted {
        Counted::Listed(pattern) => (0, pattern.key()),
        Counted::DenyListed(pattern) => (1, pattern.key()),
        Counted::Mesh => (2, 0),
        Counted::Invalid => (3, 0),
        Counted::Service(_) | Counted::Name(_) | Counted::Address(..) => return None,
    };
    Some(u64::from(pattern) << 16 | list << 8 | protocol as u64)
}
