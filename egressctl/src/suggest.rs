//! `egressctl suggest`: entries for what was called and is not listed, from access logs or from Prometheus; and the
//! opposite, entries that nobody uses.
//!
//! It proposes exact names, with port and protocol as they were seen. What should not be listed by habit (what the deny
//! list has, metadata services, what is no name) is told apart, with the reason.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use egress_filter::pattern::HostPattern;
use egress_filter::policy::Target;

use crate::access_log::{LogArgs, LoggedCall, Scanned, Seen, Skip, count, scan, tell_skipped};
use crate::cli::MeshArgs;
use crate::configuration::{Configuration, configurations};
use crate::failure::{Failure, Result};
use crate::object::objects;
use crate::output::{Format, Outcome};
use crate::prometheus::PrometheusArgs;
use crate::sidecars::Sidecars;
use crate::source;
use crate::time::AtArgs;

mod registry;
mod rows;
mod service_entry;
mod stale;
mod wanted;
mod wildcards;

use rows::Suggestions;
use stale::Usage;
use wanted::{Judgement, Unwanted};

/// Options of `suggest`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct SuggestArgs {
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    prometheus: PrometheusArgs,
    /// What is listed now: files with configurations or WasmPlugins; folders; - for standard input. Without it, what the log
    /// says of each call counts
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// Leave out what was called less often
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    min_calls: u64,
    /// Propose *.domain where so many hosts below one domain share port and protocol; never for a public suffix
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(2..))]
    wildcards: Option<u64>,
    /// Do not suggest what this pattern matches, such as `*.tracker.example`; may be repeated
    #[arg(long, value_name = "HOST", value_parser = pattern)]
    exclude: Vec<HostPattern<'static>>,
    /// For whom the entries are
    #[arg(long, value_enum, default_value_t = Scope::Namespace)]
    by: Scope,
    /// What to write [default: rows as a table, a registry as YAML or JSON]
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// The opposite: entries of -f that no call needs
    #[arg(long, requires = "files", conflicts_with_all = ["wildcards", "form"])]
    stale: bool,
    #[command(flatten)]
    at: AtArgs,
    /// Output format
    #[arg(short = 'o', long = "output", default_value = "table")]
    output: Format,
}

const EXAMPLES: &str = "\
Examples:
  # What did the workloads of a namespace call that is not listed?
  kubectl logs -n shop -l security.istio.io/tlsMode=istio -c istio-proxy --tail=-1 --prefix |
      egressctl suggest -n shop -f plugin-config.yaml -

  # The overrides to add to the list, by workload
  egressctl suggest -f plugin-config.yaml --by workload -o yaml access.log

  # The same from what Prometheus has of the last week, as ServiceEntries
  egressctl suggest --prometheus http://localhost:9090 --since 7d --as serviceentry

  # Which entries did nobody use?
  egressctl suggest --stale -f plugin-config.yaml \\
      --prometheus http://localhost:9090 --since 30d

Exit code: 0; with --stale 1 if there are any; 2 on errors.";

/// For whom entries are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// For each namespace its own.
    Namespace,
    /// For each workload its own.
    Workload,
    /// The same for all.
    Mesh,
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// What was called, by whom, how often.
    Rows,
    /// Entries of a plugin configuration.
    Registry,
    /// Istio's ServiceEntries.
    #[value(name = "serviceentry")]
    ServiceEntry,
}

fn pattern(text: &str) -> std::result::Result<HostPattern<'static>, String> {
    HostPattern::from_config(text).map(HostPattern::into_owned).map_err(|invalid| invalid.to_string())
}

/// Runs it.
///
/// # Errors
///
/// A log that cannot be read, a configuration that the filter would refuse, a Prometheus that does not answer.
pub fn run(args: &SuggestArgs, out: &mut dyn Write) -> Result<Outcome> {
    if args.form == Some(Form::ServiceEntry) && args.by == Scope::Workload {
        return Err(Failure::new(
            "--as serviceentry: a ServiceEntry is for a namespace; use --by namespace or --by mesh",
        ));
    }
    let documents = source::read(&args.files)?;
    let mut current = match args.files.as_slice() {
        [] => None,
        paths => Some(Sidecars::new(
            configurations(&objects(&documents), &source::names(paths))?,
            &args.mesh.root_namespace,
        )?),
    };
    if args.stale {
        let Some(current) = &mut current else {
            return Err(Failure::new("--stale needs -f: the list whose entries are looked at"));
        };
        return stale(args, current, out);
    }
    let now = args.at.time().0;
    let mut suggestions = Suggestions::new(crate::bounded::MOST);
    let mut refused = None;
    let mut take = |call: &LoggedCall, seen: Seen| {
        let enforced = current.as_mut().map(|current| current.of(&call.namespace, &call.workload)).transpose();
        match enforced {
            Ok(enforced) => {
                let judgement = wanted::judge(call, enforced, now)?;
                let is_excluded = matches!(judgement, Judgement::Missing { .. })
                    && matches!(&call.call.target, Target::Name(name) if args.exclude.iter().any(|one| one.matches(name)));
                let judgement = if is_excluded { Judgement::Not(Unwanted::Excluded) } else { judgement };
                suggestions.take(call, seen, judgement);
            }
            Err(error) => refused = Some(error),
        }
        Ok(())
    };
    let told = read_calls(args, &mut take)?;
    if let Some(refused) = refused {
        return Err(refused.into());
    }
    let rows = suggestions.finish(args.min_calls, args.wildcards, args.by);
    let form = args.form.unwrap_or(if args.output == Format::Table { Form::Rows } else { Form::Registry });
    let mut left_out = std::collections::BTreeSet::new();
    match form {
        Form::Rows => rows.write(args.output, out)?,
        Form::Registry => registry::write(&rows, args.by, args.output, out)?,
        Form::ServiceEntry => {
            left_out = service_entry::write(&rows, args.by, &args.mesh.root_namespace, args.output, out)?;
        }
    }
    out.flush()?;
    let mut err = crate::output::stderr();
    told.write(&mut err);
    rows.tell(form, args.by, &mut err);
    let is_verified = current.as_ref().is_some_and(|current| {
        current.iter().any(|enforced| enforced.plugins.iter().any(|(_, policy)| policy.spoof_protection()))
    });
    if is_verified && rows.have_hosts() {
        // Nobody is left to tell if this fails.
        let _ = writeln!(
            err,
            "note: spoofProtection is on: where Envoy passes them through, hosts are denied until their entries have addresses, \
             too"
        );
    }
    for host in left_out {
        // Nobody is left to tell if this fails.
        let _ = writeln!(err, "note: {host} left out: Istio takes no such host in a ServiceEntry; use --as registry");
    }
    Ok(Outcome::Clean)
}

/// What there is to say of the source.
struct Told {
    scanned: Option<Scanned>,
    notes: Vec<String>,
}

impl Told {
    fn write(&self, err: &mut dyn Write) {
        if let Some(scanned) = &self.scanned {
            // Nobody is left to tell if this fails.
            let _ = writeln!(err, "{} read", count(scanned.lines, "line"));
            tell_skipped(&scanned.skipped, err);
        }
        for note in &self.notes {
            let _ = writeln!(err, "note: {note}");
        }
    }
}

/// Reads all calls of the logs, or those of Prometheus that no entry allowed.
fn read_calls(
    args: &SuggestArgs,
    take: &mut dyn FnMut(&LoggedCall, Seen) -> std::result::Result<(), Skip>,
) -> Result<Told> {
    if args.prometheus.is_given() {
        if !args.logs.logs.is_empty() {
            return Err(Failure::new("either --prometheus or access logs; not both, or calls would count twice"));
        }
        let notes = args.prometheus.calls(args.at.time(), args.logs.namespace.as_deref(), take)?;
        return Ok(Told { scanned: None, notes });
    }
    if args.logs.logs.is_empty() {
        return Err(Failure::new("nothing to read: give access logs (- for standard input), or --prometheus URL"));
    }
    let scanned = scan(&args.logs.scan()?, |evidence, seen| take(&LoggedCall::of(evidence)?, seen))?;
    Ok(Told { scanned: Some(scanned), notes: Vec::new() })
}

fn stale(args: &SuggestArgs, current: &mut Sidecars<'_>, out: &mut dyn Write) -> Result<Outcome> {
    let listed: Vec<Configuration<'_>> = current.configurations().to_vec();
    let mut usage = Usage::of(&listed);
    let now = args.at.time();
    let told = if args.prometheus.is_given() {
        let series = args.prometheus.listed(now)?;
        for one in &series {
            usage.take_pattern(&one.namespace, &one.host, one.seen);
        }
        Told { scanned: None, notes: Vec::new() }
    } else {
        let mut refused = None;
        let mut take = |call: &LoggedCall, seen: Seen| {
            match current.of(&call.namespace, &call.workload) {
                Ok(enforced) => return usage.take(call, seen, enforced, now.0),
                Err(error) => refused = Some(error),
            }
            Ok(())
        };
        let told = read_calls(args, &mut take)?;
        if let Some(refused) = refused {
            return Err(refused.into());
        }
        told
    };
    let any = usage.write(args.output, out)?;
    out.flush()?;
    let mut err = crate::output::stderr();
    told.write(&mut err);
    usage.tell(told.scanned.as_ref(), &mut err);
    Ok(Outcome::of_findings(any))
}
