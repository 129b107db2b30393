//! `egressctl replay`: what a candidate would have denied, or newly allowed, of the calls in access logs.
//!
//! The log says what became of a call; the filter's own code says what the candidate would make of it. What the log does
//! not tell is counted and said, never guessed.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use egress_filter::policy::{Enforcement, Reason, Verdict};

use crate::access_log::{LogArgs, LoggedCall, Passage, Seen, Skip, scan};
use crate::cli::MeshArgs;
use crate::configuration::{configurations, entry_name};
use crate::enforced::{Enforced, Ruling};
use crate::failure::Result;
use crate::object::objects;
use crate::output::{Format, Outcome};
use crate::sidecars::Sidecars;
use crate::source;
use crate::time::AtArgs;

mod report;
mod rows;

use report::Report;
use rows::{Change, Entry, Row, Rows};

/// Options of `replay`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ReplayArgs {
    /// The candidate: files with configurations or WasmPlugins; folders; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Compare with what this configuration would do, instead of with what the log says was done
    #[arg(long, value_name = "FILE")]
    current: Vec<PathBuf>,
    #[command(flatten)]
    logs: LogArgs,
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
  # What would enforcing this list break, by the logs of one workload?
  kubectl logs -n shop -l app=cart -c istio-proxy --tail=-1 --prefix |
      egressctl replay -f plugin-config.yaml -n shop -

  # By everything that a node keeps; namespaces and pods are in the paths
  kubectl kustomize istio/mesh-wide |
      egressctl replay -f - /var/log/pods/*/istio-proxy/*.log

  # Between two lists, whatever was enforced at the time
  egressctl replay --current list.yaml -f new-list.yaml access.log

Exit code: 0 nothing would be newly denied, 1 something would be, 2 on errors.";

/// Runs it.
///
/// # Errors
///
/// A file that cannot be read, a configuration that the filter would refuse.
pub fn run(args: &ReplayArgs, out: &mut dyn Write) -> Result<Outcome> {
    let documents = source::read(&args.files)?;
    let mut candidate =
        Sidecars::new(configurations(&objects(&documents), &source::names(&args.files))?, &args.mesh.root_namespace)?;
    let compared = source::read(&args.current)?;
    let mut current = match args.current.as_slice() {
        [] => None,
        paths => {
            Some(Sidecars::new(configurations(&objects(&compared), &source::names(paths))?, &args.mesh.root_namespace)?)
        }
    };
    let mut replay = Replay { now: args.at.time().0, rows: Rows::default(), report: Report::default() };
    let mut refused = None;
    let scanned = scan(&args.logs.scan()?, |evidence, seen| {
        let call = LoggedCall::of(evidence)?;
        let enforced = candidate.of(&call.namespace, &call.workload);
        let compared = current.as_mut().map(|current| current.of(&call.namespace, &call.workload)).transpose();
        match (enforced, compared) {
            (Ok(enforced), Ok(compared)) => replay.take(&call, seen, enforced, compared),
            (Err(error), _) | (_, Err(error)) => {
                refused = Some(error);
                Ok(())
            }
        }
    })?;
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    let Replay { rows, mut report, .. } = replay;
    report.is_report = candidate.iter().any(reports);
    report.go_by_labels = candidate.go_by_labels();
    report.write(&scanned, rows, args.output, out)
}

fn reports(enforced: &Enforced<'_>) -> bool {
    enforced.plugins.iter().any(|(_, policy)| policy.enforcement() == Enforcement::Report)
}

struct Replay {
    now: i64,
    rows: Rows,
    report: Report,
}

impl Replay {
    fn take(
        &mut self,
        logged: &LoggedCall,
        seen: Seen,
        candidate: &Enforced<'_>,
        current: Option<&Enforced<'_>>,
    ) -> std::result::Result<(), Skip> {
        let ruling = candidate.ruling(&logged.call, self.now);
        let is_denied = ruling.as_ref().is_some_and(denies);
        let was_denied = match current {
            Some(current) => current.ruling(&logged.call, self.now).as_ref().is_some_and(denies),
            None => logged.passage != Passage::Passed,
        };
        let is_blocked = logged.is_blocked_by_mesh || logged.passage == Passage::DeniedByMesh;
        if logged.may_have_name && !is_blocked && (is_denied || was_denied || may_be_denied_by_name(candidate, &ruling))
        {
            return Err(Skip::Unnamed);
        }
        self.report.take(logged, seen, ruling.is_none());
        let change = match (was_denied, is_denied) {
            (false, true) if !is_blocked => Change::Denied,
            (true, false) if !is_blocked => Change::Allowed,
            (_, false) if is_blocked => {
                self.report.still_blocked += seen.calls;
                return Ok(());
            }
            _ => {
                self.report.unchanged += seen.calls;
                return Ok(());
            }
        };
        let entry = ruling.as_ref().and_then(|ruling| entry(ruling, candidate));
        self.rows.add(row(change, logged, ruling.as_ref(), entry), seen);
        Ok(())
    }
}

fn entry(ruling: &Ruling, candidate: &Enforced<'_>) -> Option<Entry> {
    let entry = candidate.entry(ruling)?;
    let (configuration, _) = candidate.plugins.get(ruling.plugin)?;
    let location = configuration.object.document.locate(entry.node).to_string();
    Some(Entry { name: entry_name(entry.node).into_owned(), location })
}

/// Under REPORT, too: the question is what enforcing would do.
fn denies(ruling: &Ruling) -> bool {
    matches!(ruling.verdict, Verdict::Denied | Verdict::WouldDeny)
}

/// Whether the name that is not in the log may be one that the deny list has.
fn may_be_denied_by_name(candidate: &Enforced<'_>, ruling: &Option<Ruling>) -> bool {
    let Some(ruling) = ruling else {
        return false;
    };
    let policy = candidate.plugins.get(ruling.plugin).map(|(_, policy)| policy);
    ruling.reason != Reason::MeshInternal && policy.is_some_and(|policy| policy.deny().host_patterns() > 0)
}

fn row(change: Change, logged: &LoggedCall, ruling: Option<&Ruling>, entry: Option<Entry>) -> Row {
    Row {
        change,
        namespace: logged.namespace.clone(),
        workload: logged.workload.clone(),
        host: logged.host(),
        port: logged.call.connect_port.or(logged.call.port),
        protocol: logged.call.protocol.as_str(),
        reason: ruling.map(|ruling| ruling.reason.as_str()),
        entry,
    }
}
