//! What all plugin instances of one VM share: metric ids, the table of unlisted hosts, policies, and what was logged.
//!
//! Every worker has a VM of its own, and within it everything runs on one thread.

use std::cell::RefCell;
use std::hash::Hash;
use std::rc::{Rc, Weak};

use hashbrown::HashMap;

use super::host::{self, Level, MetricKind};
use crate::metrics::{self, OTHER, UnlistedHosts};
use crate::policy::Policy;
use crate::quiet::{Quiet, Say};

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::default());
}

/// The most bytes that all connections of a VM together may have been read of while they are not decided: what their
/// readers keep is no more than that. One that asks for more is decided by what is known of it. It allows for 4,000 large
/// ClientHellos that are half there.
const MAX_INSPECTED: usize = 16 * 1024 * 1024;

#[derive(Default)]
struct Vm {
    metrics: HashMap<String, u32>,
    unlisted_hosts: UnlistedHosts,
    quiet: Quiet,
    policies: Vec<(ConfigId, Weak<Policy>)>,
    /// One for each plugin.
    running: Vec<Running>,
    inspected: usize,
}

/// The configuration that a plugin ran last.
struct Running {
    root_id: String,
    plugin_name: String,
    id: ConfigId,
}

/// Identifies a configuration by the hash and the length of its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConfigId {
    hash: u64,
    length: usize,
}

impl ConfigId {
    pub(super) fn of(text: &[u8]) -> Self {
        ConfigId { hash: xxhash_rust::xxh64::xxh64(text, 0), length: text.len() }
    }

    /// XXH64 with seed 0, as `xxhsum -H1` prints it.
    pub(super) fn label(self) -> String {
        format!("{:016x}", self.hash)
    }
}

/// The id of a metric, which is defined if it is new.
pub(super) fn metric(kind: MetricKind, name: String) -> Option<u32> {
    VM.with_borrow_mut(|vm| {
        if let Some(id) = vm.metrics.get(&name) {
            return Some(*id);
        }
        let id = host::define_metric(kind, &name)?;
        vm.metrics.insert(name, id);
        Some(id)
    })
}

pub(super) fn increment(name: String) {
    if let Some(id) = metric(MetricKind::Counter, name) {
        host::add(id, 1);
    }
}

pub(super) fn set_gauge(name: String, value: u64) {
    if let Some(id) = metric(MetricKind::Gauge, name) {
        host::record(id, value);
    }
}

/// The label of a host that no entry matches: itself, or [`OTHER`] once `limit` hosts have labels.
pub(super) fn unlisted_label(label: String, limit: u32) -> String {
    if VM.with_borrow_mut(|vm| vm.unlisted_hosts.admit(&label, limit)) {
        return label;
    }
    increment(metrics::unlisted_hosts_overflow());
    OTHER.to_owned()
}

/// What is to be logged about `subject` now.
pub(super) fn say(subject: impl Hash) -> Say {
    let now = host::now().as_secs();
    VM.with_borrow_mut(|vm| vm.quiet.say(subject, now))
}

/// Asks for so many bytes more to inspect a connection by; false if there is no room. [`end_inspection`] gives them back.
pub(super) fn inspect(bytes: usize) -> bool {
    VM.with_borrow_mut(|vm| {
        let inspected = vm.inspected.saturating_add(bytes);
        let fits = inspected <= MAX_INSPECTED;
        if fits {
            vm.inspected = inspected;
        }
        fits
    }) || {
        say_once(
            Level::Warn,
            "too many clients have begun and not ended a TLS ClientHello or HTTP head: further ones go by address alone",
        );
        false
    }
}

/// Gives back the bytes that a connection was inspected by.
pub(super) fn end_inspection(bytes: usize) {
    VM.with_borrow_mut(|vm| vm.inspected = vm.inspected.saturating_sub(bytes));
}

/// Writes a line to Envoy's log, if it was not written lately.
pub(super) fn say_once(level: Level, line: &str) {
    if say(line) == Say::Yes {
        host::log(level, line);
    }
}

/// The policy of a configuration that another plugin of this VM runs already.
pub(super) fn shared_policy(id: ConfigId) -> Option<Rc<Policy>> {
    VM.with_borrow_mut(|vm| {
        vm.policies.retain(|(_, policy)| policy.strong_count() > 0);
        vm.policies.iter().find(|(other, _)| *other == id).and_then(|(_, policy)| policy.upgrade())
    })
}

pub(super) fn share_policy(id: ConfigId, policy: &Rc<Policy>) {
    VM.with_borrow_mut(|vm| vm.policies.push((id, Rc::downgrade(policy))));
}

/// Notes what a plugin runs from now on. Returns what it ran before, unless another plugin with this root id still does.
pub(super) fn replace_running(root_id: &str, plugin_name: String, id: ConfigId) -> Option<ConfigId> {
    VM.with_borrow_mut(|vm| {
        let own = |running: &Running| running.root_id == root_id && running.plugin_name == plugin_name;
        let before = vm.running.iter().find(|running| own(running)).map(|running| running.id);
        vm.running.retain(|running| !own(running));
        vm.running.push(Running { root_id: root_id.to_owned(), plugin_name, id });
        let runs = |id: ConfigId| vm.running.iter().any(|running| running.root_id == root_id && running.id == id);
        before.filter(|before| !runs(*before))
    })
}
