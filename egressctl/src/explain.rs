//! `egressctl explain`: what becomes of a destination, why, and what to change.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use egress_filter::config::KnownNode;
use egress_filter::policy::{Reason, Target, Unnamed, Verdict};
use serde::Serialize;

use crate::call::RouteName;
use crate::cli::ClusterArgs;
use crate::cluster::Cluster;
use crate::configuration::{Configuration, List, Plugin, configurations, entry_name};
use crate::enforced::{Enforced, Ruling, strictest};
use crate::failure::{Failure, Result};
use crate::object::{Kind, Object, objects};
use crate::output::{BAD, BOLD, DIM, Format, GOOD, Outcome, WARNING, document, styled, yaml};
use crate::routing;
use crate::source::{self, Document};
use crate::target::Asked;
use crate::time::{AtArgs, Time};

mod near;
mod repair;

use near::Near;
use repair::{Denied, Repair};

/// Options of `explain`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArgs {
    /// POD, with -n and without -f; then what is asked for: `http://host/path`, `https://host`, `grpc://host`,
    /// `tls://sni:port[@ip]`, `tcp://ip:port`, `connect://host:port`
    #[arg(required = true, value_name = "POD|URL")]
    words: Vec<String>,
    /// Files with configurations, WasmPlugins, ServiceEntries, Services; folders; - for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Namespace of the client
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Workload of the client: the name of its Deployment or StatefulSet
    #[arg(long)]
    workload: Option<String>,
    /// Label of the client, KEY=VALUE; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where Envoy sends it: passthrough, blackhole, or the host of a service. Found in the objects given, if left out
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Plugin that sees it, where it is not the usual one: HTTP on a port without an HTTP service goes to egress-tcp
    #[arg(long)]
    plugin: Option<PluginName>,
    /// The server speaks first, as MySQL and SMTP do; for tcp://
    #[arg(long)]
    server_first: bool,
    #[command(flatten)]
    at: AtArgs,
    /// Output format
    #[arg(short = 'o', long = "output", default_value = "table")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const EXAMPLES: &str = "\
Examples:
  # By a file, for any client
  egressctl explain -f plugin-config.yaml http://api.partner.example/

  # For a workload of a namespace, with everything that the cluster has
  kubectl get wasmplugins,serviceentries,services -A -o yaml > mesh.yaml
  egressctl explain -f mesh.yaml -n shop --workload crawler \\
      https://news.example tcp://192.0.2.7:3306

  # For a running pod
  egressctl explain -n shop client-5d9c7b9f4-x2x8p tls://api.partner.example:443

Exit code: 0 allowed, 1 if any is denied or would be, 2 on errors.";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PluginName {
    #[value(name = "egress-http")]
    Http,
    #[value(name = "egress-tcp")]
    Tcp,
}

fn label(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The answer for one URL.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    url: String,
    /// `None`: no plugin sees it, so it passes.
    verdict: Option<&'static str>,
    reason: Option<&'static str>,
    /// The label `egress_host`.
    host: Option<String>,
    why: String,
    decided_by: Option<Place>,
    entry: Option<Place>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    came_close: Vec<Near>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_allow: Option<Repair>,
    notes: Vec<String>,
}

/// Something in a file.
#[derive(Debug, Serialize)]
struct Place {
    /// What it is.
    what: String,
    /// `FILE:LINE:COLUMN`.
    location: String,
}

/// Runs it.
///
/// # Errors
///
/// Bad usage, files that cannot be read, configurations that the filter would refuse.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> Result<Outcome> {
    let (pods, urls): (Vec<&String>, Vec<&String>) = args.words.iter().partition(|word| !word.contains("://"));
    let asked: Vec<Asked> = urls
        .into_iter()
        .map(|url| Asked::parse(url).map_err(|invalid| Failure::new(invalid.to_string())))
        .collect::<Result<_>>()?;
    if asked.is_empty() {
        return Err(Failure::new("nothing is asked for; add a URL such as http://api.partner.example/"));
    }
    let (documents, node) = match (pods.as_slice(), args.files.as_slice()) {
        ([], [_, ..]) => (source::read(&args.files)?, node_of(args)),
        ([pod, ..], [_, ..]) => {
            return Err(Failure::new(format!("{pod:?} is no URL, and a pod is looked up in a cluster, without -f")));
        }
        (pods, []) => of_cluster(args, pods)?,
    };
    let objects = objects(&documents);
    let from = if args.files.is_empty() { "the cluster".to_owned() } else { source::names(&args.files) };
    let configurations = configurations(&objects, &from)?;
    let enforced = Enforced::of(&configurations, &node, &args.cluster.mesh.root_namespace)?;
    let now = args.at.time();
    let mut answers: Vec<Explanation> =
        asked.into_iter().map(|asked| explain(asked, args, &objects, &enforced, now)).collect();
    let elsewhere = configurations.iter().find(|one| !one.is_on(&node, &args.cluster.mesh.root_namespace));
    if let Some(elsewhere) = elsewhere {
        for answer in answers.iter_mut().filter(|answer| answer.verdict.is_none()) {
            answer.notes.push(format!(
                "{} is on other sidecars: -n, --workload and --label say whose this one is",
                elsewhere.object
            ));
        }
    }
    if args.output == Format::Table {
        for (position, answer) in answers.iter().enumerate() {
            if position > 0 {
                writeln!(out)?;
            }
            print(answer, out)?;
        }
    } else {
        document(out, args.output, &answers)?;
    }
    let is_denied = |answer: &Explanation| matches!(answer.verdict, Some("denied" | "would_deny"));
    Ok(Outcome::of_findings(answers.iter().any(is_denied)))
}

/// What a cluster has that counts for sidecars of the namespace.
fn of_cluster(args: &ExplainArgs, pods: &[&String]) -> Result<(Vec<Document>, KnownNode)> {
    let Some(namespace) = &args.namespace else {
        return Err(Failure::new(
            "the namespace of the client is missing; add -n NAMESPACE, or -f FILE to ask no cluster",
        ));
    };
    let describes = args.workload.is_some() || !args.labels.is_empty();
    let (pod, is_one) = match pods {
        [] => (None, true),
        [pod] => (Some(pod), true),
        _ => (None, false),
    };
    if !is_one || (pod.is_some() && describes) {
        return Err(Failure::new("name one pod, or describe it with --workload and --label; not both"));
    }
    let cluster = Cluster::connect(&args.cluster)?;
    let node = match pod {
        Some(pod) => cluster.node_of_pod(namespace, pod)?,
        None => node_of(args),
    };
    let mut documents = cluster.plugins(&args.cluster.mesh.root_namespace, Some(namespace))?;
    for kind in [Kind::Service, Kind::ServiceEntry] {
        documents.extend(cluster.list(kind, None)?);
    }
    Ok((documents, node))
}

fn node_of(args: &ExplainArgs) -> KnownNode {
    KnownNode {
        namespace: args.namespace.clone(),
        workload: args.workload.clone(),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
    }
}

fn explain(
    Asked { url, mut call }: Asked,
    args: &ExplainArgs,
    objects: &[Object<'_>],
    enforced: &Enforced<'_>,
    now: Time,
) -> Explanation {
    let mut because = None;
    match args.plugin {
        Some(PluginName::Http) => call.plugin = Plugin::Http,
        Some(PluginName::Tcp) => {
            call.plugin = Plugin::Tcp;
            call.is_routed_by_name = false;
        }
        None => {}
    }
    if args.server_first && call.target == Target::Unnamed(Unnamed::Opaque) {
        call.target = Target::Unnamed(Unnamed::ServerFirst);
    }
    match args.route.as_deref() {
        Some("passthrough") => call.route = RouteName::passthrough(),
        Some("blackhole") => call.route = RouteName::Cluster("BlackHoleCluster".to_owned()),
        Some(host) => call.route = RouteName::service(host, call.port.unwrap_or_default()),
        None => {
            let assumed = routing::assume(&call, objects, enforced);
            call.route = assumed.route;
            // Without an HTTP service on the port Envoy reads no Host, so it chose no route by it.
            let is_unparsed_http = matches!(args.plugin, Some(PluginName::Tcp));
            call.is_routed_by_name = assumed.is_routed_by_name && !is_unparsed_http;
            because = Some(assumed.because);
        }
    }
    let rulings = enforced.rulings(&call, now.0);
    let Some(ruling) = strictest(rulings.iter().cloned()) else {
        let plugin = call.plugin.root_id();
        let why = format!("no {plugin} plugin is on this sidecar: it passes undecided");
        return Explanation {
            url,
            verdict: None,
            reason: None,
            host: None,
            why,
            decided_by: None,
            entry: None,
            came_close: Vec::new(),
            to_allow: None,
            notes: Vec::new(),
        };
    };
    let mut notes = Vec::new();
    // Where the route or the address could not have changed the answer, they are not worth a word.
    let is_by_name = matches!(ruling.reason, Reason::Listed | Reason::DenyListed);
    notes.extend(because.filter(|_| !is_by_name));
    if call.address.is_none() && enforced.plugins.iter().any(|(one, _)| goes_by_address(one, is_by_name)) {
        notes.push("its address is not known here: add @IP to have what goes by address considered".to_owned());
    }
    notes.extend(rulings.iter().filter(|other| other.plugin != ruling.plugin).map(|other| {
        let by = enforced.plugins.get(other.plugin).map(|(one, _)| one.object.to_string()).unwrap_or_default();
        format!("{by} says {} {}; what passes has passed all", other.verdict.as_str(), other.reason.as_str())
    }));
    answer(url, &call, &ruling, enforced, now.0, notes)
}

fn answer(
    url: String,
    call: &crate::call::Call,
    ruling: &Ruling,
    enforced: &Enforced<'_>,
    now: i64,
    mut notes: Vec<String>,
) -> Explanation {
    let configuration = enforced.plugins.get(ruling.plugin).map(|(configuration, _)| configuration);
    let entry = enforced.entry(ruling);
    let is_allowed = ruling.verdict == Verdict::Allowed;
    if ruling.verdict == Verdict::WouldDeny {
        notes.push("it passes: enforcement is REPORT. Under ENFORCE it would be denied".to_owned());
    }
    if !is_allowed && call.address.is_some_and(is_link_local) {
        notes.push(
            "it is a link-local address, where clouds serve credentials: think twice before you list it".to_owned(),
        );
    }
    let wants_near = !is_allowed && ruling.reason != Reason::DenyListed;
    Explanation {
        url,
        verdict: Some(ruling.verdict.as_str()),
        reason: Some(ruling.reason.as_str()),
        host: Some(ruling.host.clone()),
        why: ruling.reason.explanation().to_owned(),
        decided_by: configuration.map(|one| Place {
            what: format!("{} of {}", call.plugin.root_id(), one.object),
            location: one.object.location().to_string(),
        }),
        entry: configuration.zip(entry).map(|(one, entry)| Place {
            what: format!("{} {}, by {}", entry.path, entry_name(entry.node), ruling.host),
            location: one.object.document.locate(entry.node).to_string(),
        }),
        came_close: configuration
            .filter(|_| wants_near)
            .map(|one| near::nearest(call, one, &enforced.node, entry))
            .unwrap_or_default(),
        to_allow: configuration.filter(|_| !is_allowed).and_then(|configuration| {
            let (node, reason) = (&enforced.node, ruling.reason);
            Denied { call, configuration, node, reason, entry, now }.repair()
        }),
        notes,
    }
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Whether the address could change the answer; if the name has decided, only through `deny`.
fn goes_by_address(configuration: &Configuration<'_>, is_by_name: bool) -> bool {
    let counts = |list| list == List::Deny || !is_by_name;
    let entries = configuration.entries();
    entries.iter().any(|entry| counts(entry.list) && entry.node.get("addresses").is_some())
        || (!is_by_name && configuration.node().within(&["mesh", "addresses"]).is_some())
}

fn print(answer: &Explanation, out: &mut dyn Write) -> Result<()> {
    let (style, verdict) = match answer.verdict {
        None => (WARNING, "not decided"),
        Some("allowed") => (GOOD, "allowed"),
        Some("denied") => (BAD, "denied"),
        Some(verdict) => (WARNING, verdict),
    };
    let reason = answer.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    writeln!(out, "{}  {}{reason}", styled(BOLD, &answer.url), styled(style, verdict))?;
    let mut line = |label: &str, text: &str| -> Result<()> {
        let mut label = format!("{label:<13}");
        for part in text.lines() {
            writeln!(out, "  {}{part}", styled(DIM, &label))?;
            label = " ".repeat(13);
        }
        Ok(())
    };
    line("why", &answer.why)?;
    if let Some(place) = &answer.decided_by {
        line("decided by", &format!("{} ({})", place.what, place.location))?;
    }
    if let Some(place) = &answer.entry {
        line("entry", &format!("{} ({})", place.what, place.location))?;
    }
    for near in &answer.came_close {
        line("came close", &format!("{}, {} ({}: {})", near.pattern, near.but, near.location, near.path))?;
    }
    if let Some(repair) = &answer.to_allow {
        line("to allow it", &repair.what)?;
        if let Some(add) = &repair.add {
            line("", &yaml(add)?)?;
        }
    }
    for note in &answer.notes {
        line("note", note)?;
    }
    Ok(())
}
