//! `egressctl check`: what is wrong with a configuration and the objects around it, and what is probably not meant.
//!
//! Errors are the filter's own. Everything else is a rule with a code that stays the same, so that a pipeline can rely on
//! it. No cluster is asked.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use egress_filter::config::KnownNode;

use crate::cli::MeshArgs;
use crate::configuration::Configuration;
use crate::failure::{Failure, Result};
use crate::object::{Kind, Object, objects};
use crate::output::{self, BAD, DIM, Format, Outcome, Table, WARNING, document, styled};
use crate::source;
use crate::time::{AtArgs, Time};

pub mod entries;
mod finding;
mod overlaps;
mod plugins;
pub mod rule;
mod sarif;
mod service_entries;
mod settings;
pub mod values;

use finding::{Finding, Findings};
use rule::Severity;
use service_entries::Hosts;
use values::Horizon;

/// Options of `check`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Files with configurations, WasmPlugins, EnvoyFilters, ServiceEntries; folders; - for standard input
    #[arg(value_name = "FILE", required_unless_present_any = ["rules", "also"])]
    files: Vec<PathBuf>,
    /// The same
    #[arg(short = 'f', long = "filename", value_name = "FILE", id = "also")]
    also: Vec<PathBuf>,
    /// Findings from this severity on make the exit code 1
    #[arg(long, value_name = "SEVERITY", default_value = "warning")]
    fail_on: Severity,
    /// What expires within so many days, expires soon
    #[arg(long, value_name = "DAYS", default_value = "14")]
    expires_within: u16,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    at: AtArgs,
    /// Output format
    #[arg(short = 'o', long = "output", default_value = "table")]
    output: CheckFormat,
    /// Print all rules with their codes, and check nothing
    #[arg(long, conflicts_with = "files")]
    rules: bool,
}

const EXAMPLES: &str = "\
Examples:
  # In a pipeline, with no cluster: exit code 1 on errors and warnings
  egressctl check istio/mesh-wide/plugin-config.yaml service-entries/

  # For code review
  egressctl check -o sarif istio/ > egressctl.sarif

  # Everything that runs
  kubectl get wasmplugins,envoyfilters,serviceentries -A -o yaml | egressctl check -

A comment `# egressctl:ignore EG101` on the line, or on the line before it, silences one finding.

Exit code: 0 no findings, 1 findings, 2 on errors.";

/// `-o` of this command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckFormat {
    /// A line for each finding.
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// SARIF 2.1.0.
    Sarif,
}

/// Runs it.
///
/// # Errors
///
/// Files that cannot be read or are no YAML; nothing in them to check.
pub fn run(args: &CheckArgs, out: &mut dyn Write) -> Result<Outcome> {
    if args.rules {
        return print_rules(args.output, out);
    }
    let files: Vec<PathBuf> = args.files.iter().chain(&args.also).cloned().collect();
    let documents = source::read(&files)?;
    let objects = objects(&documents);
    let known = objects.iter().filter(|object| object.kind != Kind::Other).count();
    if known == 0 {
        return Err(Failure::new(
            "nothing to check: no configuration, WasmPlugin, EnvoyFilter or ServiceEntry in these files",
        ));
    }
    let now = args.at.time();
    let soon = Time(now.0.saturating_add(i64::from(args.expires_within) * 24 * 60 * 60));
    let findings = check(&objects, Horizon { now, soon }, &args.mesh.root_namespace);
    let ignored = findings.ignored;
    let findings = findings.sorted();
    match args.output {
        CheckFormat::Table => print(&findings, out)?,
        CheckFormat::Json => document(out, Format::Json, &findings)?,
        CheckFormat::Yaml => document(out, Format::Yaml, &findings)?,
        CheckFormat::Sarif => writeln!(out, "{}", output::json(&sarif::log(&findings))?)?,
    }
    out.flush()?;
    summarise(&findings, ignored, known)?;
    Ok(Outcome::of_findings(findings.iter().any(|finding| finding.severity >= args.fail_on)))
}

fn check(objects: &[Object<'_>], horizon: Horizon, root_namespace: &str) -> Findings {
    let mut findings = Findings::default();
    let configurations: Vec<Configuration<'_>> =
        objects.iter().filter_map(|object| Configuration::of(*object)).collect();
    let services = service_entries::read(objects, &mut findings);
    let hosts = Hosts::of(&services);
    let mut seen = BTreeSet::new();
    for configuration in &configurations {
        // The two plugins of a namespace have the same text, as they should: its findings are told once.
        if !seen.insert((configuration.object.namespace(), configuration.json())) {
            continue;
        }
        // Valid on every sidecar or on none, so any will do.
        let policy = match configuration.policy(&KnownNode::default()) {
            Ok(policy) => policy,
            Err(invalid) => {
                for problem in invalid.problems() {
                    let at = configuration.find(problem.path());
                    findings.add(&rule::REFUSED, &configuration.object, at, problem.to_string());
                }
                continue;
            }
        };
        let entries = entries::parse(configuration);
        values::check(configuration, &entries, horizon, &mut findings);
        values::check_denied(configuration, &entries, &policy, &mut findings);
        values::check_spoofing(configuration, &entries, &policy, &hosts, &mut findings);
        overlaps::check(configuration, &entries, &mut findings);
        settings::check(configuration, &policy, root_namespace, &mut findings);
        service_entries::check_registry_only(objects, &hosts, configuration, &entries, &mut findings);
        service_entries::check_server_first(objects, &services, configuration, &entries, &mut findings);
    }
    plugins::check(objects, &configurations, root_namespace, horizon.now, &mut findings);
    service_entries::check(&services, &mut findings);
    findings
}

fn print(findings: &[Finding], out: &mut dyn Write) -> Result<()> {
    for finding in findings {
        let style = style(finding.severity);
        writeln!(
            out,
            "{}: {} {}",
            finding.location,
            styled(style, &format!("{} {} {}:", finding.severity.as_str(), finding.rule.code, finding.rule.name)),
            finding.message
        )?;
    }
    Ok(())
}

/// To standard error: standard output has the findings and nothing else.
fn summarise(findings: &[Finding], ignored: usize, objects: usize) -> Result<()> {
    let count = |severity, one: &str, many: &str| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        format!("{count} {}", if count == 1 { one } else { many })
    };
    let mut parts = vec![
        count(Severity::Error, "error", "errors"),
        count(Severity::Warning, "warning", "warnings"),
        count(Severity::Note, "note", "notes"),
    ];
    if ignored > 0 {
        parts.push(format!("{ignored} ignored"));
    }
    let objects = if objects == 1 { "1 object".to_owned() } else { format!("{objects} objects") };
    writeln!(crate::output::stderr(), "{} in {objects}", parts.join(", "))?;
    Ok(())
}

fn style(severity: Severity) -> anstyle::Style {
    match severity {
        Severity::Error => BAD,
        Severity::Warning => WARNING,
        Severity::Note => DIM,
    }
}

fn print_rules(format: CheckFormat, out: &mut dyn Write) -> Result<Outcome> {
    let records: Vec<_> = rule::ALL
        .iter()
        .map(|rule| {
            serde_json::json!({"code": rule.code, "name": rule.name, "severity": rule.severity, "about": rule.about})
        })
        .collect();
    match format {
        CheckFormat::Json | CheckFormat::Sarif => document(out, Format::Json, &records)?,
        CheckFormat::Yaml => document(out, Format::Yaml, &records)?,
        CheckFormat::Table => {
            let mut table = Table::new(&["CODE", "SEVERITY", "NAME", "ABOUT"]);
            for rule in rule::ALL {
                let severity = styled(style(rule.severity), rule.severity.as_str());
                table.row(vec![rule.code.to_owned(), severity, rule.name.to_owned(), rule.about.to_owned()]);
            }
            table.write(out)?;
        }
    }
    Ok(Outcome::Clean)
}
