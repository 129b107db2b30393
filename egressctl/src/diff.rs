//! `egressctl diff`: what changes in reach from one configuration to another, not in text.
//!
//! Both are asked, by the filter's own code, about everything that either names. An entry that is moved, renamed or written
//! otherwise changes nothing; a wildcard that swallows a deny entry's exception does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use egress_filter::policy::{Enforcement, Mode, Policy, Verdict, WireProtocol};
use serde::Serialize;

use crate::call::Call;
use crate::check::entries::{Parsed, parse};
use crate::cli::MeshArgs;
use crate::configuration::{Configuration, configurations};
use crate::document::Node;
use crate::enforced::Enforced;
use crate::failure::Result;
use crate::object::objects;
use crate::output::{self, BAD, Format, GOOD, Outcome, Table, WARNING, document, styled};
use crate::source;
use crate::time::{AtArgs, Time};

mod changes;
mod probes;

use changes::{Change, Direction, Gathered, Key, sidecars};
use probes::Probes;

/// Options of `diff`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DiffArgs {
    /// What runs: a file or folder with configurations or WasmPlugins; - for standard input
    old: PathBuf,
    /// What is to run
    new: PathBuf,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    at: AtArgs,
    /// Output format
    #[arg(short = 'o', long = "output", default_value = "table")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  egressctl diff plugin-config.yaml plugin-config.new.yaml

  # What runs, and what a branch would make of it
  kubectl get wasmplugins -A -o yaml | egressctl diff - rendered/

A + is reached afterwards and was not before, a - the other way round. What expires is asked for now, before
and after the ends that differ; 'later' stands where only that differs.

Exit code: 0 no change in reach, 1 changes, 2 on errors.";

#[derive(Serialize)]
struct Difference {
    /// Modes and enforcements that differ, one line each.
    settings: Vec<String>,
    changes: Vec<Change>,
}

/// Runs it.
///
/// # Errors
///
/// Files that cannot be read, or that have no configuration; configurations that the filter would refuse.
pub fn run(args: &DiffArgs, out: &mut dyn Write) -> Result<Outcome> {
    let (old, new) = (source::read(std::slice::from_ref(&args.old))?, source::read(std::slice::from_ref(&args.new))?);
    let (old, new) = (objects(&old), objects(&new));
    let old = configurations(&old, &args.old.display().to_string())?;
    let new = configurations(&new, &args.new.display().to_string())?;
    let both: Vec<Configuration<'_>> = old.iter().chain(&new).copied().collect();
    let probes = Probes::of(&both, &args.mesh.root_namespace);
    let now = args.at.time();
    let (times, left_out) = times([&old, &new], now);
    let mut gathered = Gathered::default();
    let mut settings: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (position, (_, node)) in probes.nodes.iter().enumerate() {
        let before = Enforced::of(&old, node, &args.mesh.root_namespace)?;
        let after = Enforced::of(&new, node, &args.mesh.root_namespace)?;
        for change in changed_settings(&before, &after) {
            settings.entry(change).or_default().push(position);
        }
        ask(&probes, position, [&before, &after], &times, &mut gathered);
    }
    let difference = Difference {
        settings: settings.into_iter().map(|(change, nodes)| format!("{change}{}", suffix(&nodes, &probes))).collect(),
        changes: gathered.changes(&probes),
    };
    let has_changed = !difference.settings.is_empty() || !difference.changes.is_empty();
    match args.output {
        Format::Table => print(&difference, out)?,
        format => document(out, format, &difference)?,
    }
    out.flush()?;
    if probes.more_nodes > 0 {
        let more = probes.more_nodes;
        writeln!(output::stderr(), "note: {more} more kinds of sidecars are told apart than were asked about")?;
    }
    if left_out > 0 {
        writeln!(output::stderr(), "note: entries end at too many times: {left_out} of them were not asked about")?;
    }
    Ok(Outcome::of_findings(has_changed))
}

/// At how many ends of entries is asked.
const MOST_TIMES: usize = 100;

/// When to ask, now first, and how many times are left out.
///
/// What both have ends in both at once. Between two ends of what only one of them has, reach only shrinks in both alike, so
/// a difference shows last just before an end, or when everything has ended.
fn times(both: [&[Configuration<'_>]; 2], now: Time) -> (Vec<i64>, usize) {
    let [old, new] = both.map(|configurations| {
        let ends = configurations.iter().flat_map(|one| {
            let of_entry = |parsed: Parsed<'_>| {
                let (end, _) = parsed.expires.filter(|(end, _)| *end > now)?;
                let criteria =
                    parsed.entry.in_override.and_then(|position| one.overrides().get(position)?.get("match"));
                let on = format!("{} {:?} {:?}", one.object.namespace(), one.plugin, one.selector());
                Some((end.0, on, criteria.map(Node::to_json), parsed.entry.node.to_json()))
            };
            parse(one).into_iter().filter_map(of_entry)
        });
        ends.collect::<BTreeSet<_>>()
    });
    let before_ends: BTreeSet<i64> = old.symmetric_difference(&new).map(|(end, ..)| end.saturating_sub(1)).collect();
    let left_out = before_ends.len().saturating_sub(MOST_TIMES);
    let mut times = vec![now.0];
    times.extend(before_ends.into_iter().filter(|time| *time > now.0).take(MOST_TIMES));
    times.push(i64::MAX);
    (times, left_out)
}

fn ask(probes: &Probes, node: usize, [before, after]: [&Enforced<'_>; 2], times: &[i64], gathered: &mut Gathered) {
    let mut changed = BTreeSet::new();
    for subject in &probes.subjects {
        for port in &probes.ports {
            for call in subject.calls(*port) {
                for (position, time) in times.iter().enumerate() {
                    let later = position > 0;
                    let (old, new) = (reach(before, &call, *time), reach(after, &call, *time));
                    if old.0 == new.0 {
                        continue;
                    }
                    let change = if new.0 { Direction::Added } else { Direction::Removed };
                    let protocol = protocol(&call);
                    let mut follows = subject.follows.iter().map(|name| (change, name.clone(), *port, protocol));
                    if follows.any(|other| changed.contains(&other)) {
                        break;
                    }
                    changed.insert((change, subject.name.clone(), *port, protocol));
                    let key = Key { change, host: subject.name.clone(), later };
                    gathered.add(key, node, *port, protocol, [old.1, new.1]);
                    // What differs now need not be told again.
                    break;
                }
            }
        }
    }
}

/// Whether it is permitted, and why; whether REPORT lets it pass all the same is told by the settings.
fn reach(enforced: &Enforced<'_>, call: &Call, now: i64) -> (bool, String) {
    match enforced.ruling(call, now) {
        None => (true, "no plugin".to_owned()),
        Some(ruling) => (ruling.verdict == Verdict::Allowed, ruling.reason.as_str().to_owned()),
    }
}

fn protocol(call: &Call) -> &'static str {
    match call.protocol {
        WireProtocol::Http | WireProtocol::Grpc => "HTTP",
        WireProtocol::Tls => "TLS",
        WireProtocol::Tcp => "TCP",
    }
}

/// Modes and the like, plugin by plugin where they differ.
fn changed_settings(before: &Enforced<'_>, after: &Enforced<'_>) -> BTreeSet<String> {
    let mut changes = BTreeSet::new();
    for plugin in [crate::configuration::Plugin::Http, crate::configuration::Plugin::Tcp] {
        let strictest = |enforced: &Enforced<'_>| -> Option<[&'static str; 3]> {
            let policies: Vec<&Policy> =
                enforced.plugins.iter().filter(|(one, _)| one.is_for(plugin)).map(|(_, policy)| policy).collect();
            let any = |test: &dyn Fn(&Policy) -> bool| policies.iter().any(|policy| test(policy));
            (!policies.is_empty()).then(|| {
                [
                    if any(&|policy| policy.mode() == Mode::RegistryOnly) { "REGISTRY_ONLY" } else { "ALLOW_ANY" },
                    if any(&|policy| policy.enforcement() == Enforcement::Enforce) { "ENFORCE" } else { "REPORT" },
                    if any(&Policy::spoof_protection) { "true" } else { "false" },
                ]
            })
        };
        match (strictest(before), strictest(after)) {
            (Some(old), Some(new)) => {
                for (name, (old, new)) in
                    ["outboundTrafficPolicy.mode", "enforcement", "spoofProtection"].iter().zip(old.iter().zip(new))
                {
                    if *old != new {
                        changes.insert(format!("{name}: {old} -> {new}"));
                    }
                }
            }
            (None, Some(_)) => _ = changes.insert(format!("{}: none -> there", plugin.root_id())),
            (Some(_), None) => _ = changes.insert(format!("{}: there -> none", plugin.root_id())),
            (None, None) => {}
        }
    }
    changes
}

fn suffix(nodes: &[usize], probes: &Probes) -> String {
    if nodes.len() == probes.nodes.len() { String::new() } else { format!(" ({})", sidecars(nodes, probes).join(", ")) }
}

fn print(difference: &Difference, out: &mut dyn Write) -> Result<()> {
    for line in &difference.settings {
        writeln!(out, "{}", styled(WARNING, line))?;
    }
    if !difference.changes.is_empty() {
        if !difference.settings.is_empty() {
            writeln!(out)?;
        }
        let mut table = Table::new(&["", "HOST", "PORTS", "OLD", "NEW", "SIDECARS"]);
        for change in &difference.changes {
            let (style, sign) = match change.key.change {
                Direction::Added => (GOOD, "+"),
                Direction::Removed => (BAD, "-"),
            };
            let sign = if change.key.later { format!("{sign} later") } else { sign.to_owned() };
            table.row(vec![
                styled(style, &sign),
                change.key.host.clone(),
                change.ports.clone(),
                joined(&change.old),
                joined(&change.new),
                change.sidecars.join(", "),
            ]);
        }
        table.write(out)?;
    }
    if difference.settings.is_empty() && difference.changes.is_empty() {
        writeln!(out, "no change in reach")?;
    }
    Ok(())
}

fn joined(reasons: &BTreeSet<String>) -> String {
    reasons.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
