//! `egressctl render`: ServiceEntries and Sidecars become the filter's configuration.
//!
//! Its parts: [`entry`] (a ServiceEntry as entries of the registry), [`audience`] (who sees which), [`plugin_config`] (all
//! of it in one text) and [`manifest`] (objects around that). What the filter cannot do as Istio does it is a warning.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::istio_sidecar::{ListenerPort, Sidecar, Sidecars};
use crate::object::{Kind, Object, objects};
use crate::output::{self, Outcome, WARNING, styled};
use crate::service_entry::{Location, ServiceEntry};
use crate::source;

pub mod audience;
pub mod entry;
pub mod finding;
pub mod manifest;
pub mod plugin_config;
#[cfg(test)]
mod tests;

use audience::{Audiences, Scope, View};
use entry::{External, internal_domains, tls_ports};
use finding::Findings;
use manifest::{Installation, IstioVersion};
use plugin_config::PluginConfig;

const EXAMPLES: &str = "\
Examples:
  # What the workloads of one namespace may reach
  egressctl render -f serviceentries.yaml -n shop

  # The whole mesh, as a patch for istio/mesh-wide
  kubectl get serviceentries,sidecars,namespaces -A -o yaml |
      egressctl render -f - -A --format kustomize

  # All objects, to be applied; nothing is denied yet
  egressctl render -f mesh/ -A --base base.yaml --enforcement report --format wasmplugin \\
      --url oci://registry.example/egress-filter@sha256:... |
      kubectl apply -f -

Exit codes: 0 rendered, 1 rendered with warnings under --strict, 2 not rendered.";

/// The arguments of `render`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("scope").required(true).args(["namespace", "all_namespaces"])))]
pub struct RenderArgs {
    /// Files or folders with ServiceEntries, and Sidecars and Namespaces if there are any; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Render what the workloads of this namespace may reach
    #[arg(short, long, value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    /// Render one configuration for the whole mesh
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print it
    #[arg(short, long, value_name = "ENCODING", value_enum, default_value_t = Encoding::Yaml)]
    output: Encoding,
    /// What to print: the bare configuration, a patch for istio/, or all objects
    #[arg(long, value_enum, default_value_t = RenderFormat::Config)]
    format: RenderFormat,
    /// Where the module comes from, for --format wasmplugin
    #[arg(long, value_name = "URL", required_if_eq("format", "wasmplugin"))]
    url: Option<String>,
    /// Istio's version, for --format wasmplugin: before 1.30 it serves plugins under another name
    #[arg(long, value_name = "VERSION", default_value = "1.30")]
    istio_version: IstioVersion,
    /// A plugin configuration to start from: deny, mesh, denyMessage and so on are kept, rendered entries are added
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Set enforcement
    #[arg(long, value_enum, value_name = "MODE")]
    enforcement: Option<EnforcementArg>,
    /// A domain of the mesh, instead of cluster.local; may be repeated
    #[arg(long = "mesh-domain", value_name = "DOMAIN", value_parser = mesh_domain)]
    mesh_domains: Vec<String>,
    /// Istio's root namespace: a Sidecar there is for every namespace without one
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    root_namespace: String,
    /// meshConfig.defaultServiceExportTo: who sees a ServiceEntry without exportTo
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "*")]
    default_export_to: Vec<String>,
    /// Exit with 1 if there are warnings
    #[arg(long)]
    strict: bool,
}

/// `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// YAML.
    Yaml,
    /// JSON.
    Json,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RenderFormat {
    /// The plugin configuration
    Config,
    /// What stands in for plugin-config.yaml of istio/mesh-wide or istio/namespace
    Kustomize,
    /// Both WasmPlugins and the EnvoyFilter, for kubectl apply
    Wasmplugin,
}

/// `--enforcement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EnforcementArg {
    /// Nothing is denied
    Report,
    /// What is not listed is denied
    Enforce,
}

/// What was read: everything that counts, for everyone.
#[derive(Debug)]
struct Inventory<'a> {
    /// Sorted by namespace and name.
    externals: Vec<External<'a>>,
    internals: Vec<ServiceEntry<'a>>,
    sidecars: Sidecars<'a>,
    /// Of any object, and those that ServiceEntries are exported to.
    namespaces: BTreeSet<&'a str>,
    /// Whether there are Namespaces: then all are known.
    has_namespaces: bool,
}

impl RenderArgs {
    /// Renders.
    ///
    /// # Errors
    ///
    /// Files that cannot be read, objects that are not valid or that the filter cannot take.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        if self.format == RenderFormat::Wasmplugin && self.namespace.as_ref() == Some(&self.root_namespace) {
            let message = "a plugin in the root namespace is for the whole mesh; render with --all-namespaces";
            return Err(Failure::new(format!("--namespace {}: {message}", self.root_namespace)));
        }
        let documents = source::read(&self.files)?;
        let objects = objects(&documents);
        let mut findings = Findings::default();
        let (config, header) = self.render(&objects, &mut findings)?;
        self.print(out, config, &header)?;
        let warnings = findings.into_warnings();
        let mut err = crate::output::stderr();
        for warning in &warnings {
            // A warning that cannot be written keeps nothing from being rendered.
            let _ = writeln!(err, "{} {warning}", styled(WARNING, "warning:"));
        }
        Ok(Outcome::of_findings(self.strict && !warnings.is_empty()))
    }

    /// The configuration, and the comment that says what made it.
    fn render(&self, objects: &[Object<'_>], findings: &mut Findings) -> Result<(Value, String)> {
        let inventory = self.read(objects, findings)?;
        let scope = match &self.namespace {
            Some(namespace) => Scope::Namespace(namespace),
            None => Scope::Mesh(inventory.namespaces.clone()),
        };
        let tls_ports = tls_ports(&inventory.externals);
        let view = View {
            entries: &inventory.externals,
            tls_ports: &tls_ports,
            sidecars: &inventory.sidecars,
            default_export_to: &self.default_export_to,
        };
        let mut config = match &self.base {
            Some(path) => PluginConfig::from_base(path)?,
            None => PluginConfig::default(),
        };
        let audiences = view.audiences(&scope);
        if let Some(enforcement) = self.enforcement {
            config.set_enforcement(match enforcement {
                EnforcementArg::Report => "REPORT",
                EnforcementArg::Enforce => "ENFORCE",
            });
        }
        // Later overrides win: what a workload's Sidecar says comes after what its namespace's does.
        config.add_registry(&view, &audiences);
        config.add_modes(&view, &scope, findings);
        config.add_workloads(&view, &audiences, findings);
        let internal = self.internal(&inventory, findings);
        findings.check()?;
        let domains = config.add_domains(&self.mesh_domains, &internal);
        let rendered = rendered(&audiences);
        for external in rendered.iter().filter_map(|&entry| inventory.externals.get(entry)) {
            external.warn(&tls_ports, findings);
            external.warn_of_domains(&domains, findings);
        }
        self.warn(&inventory, &audiences, findings);
        let for_whom = match &scope {
            Scope::Namespace(namespace) => format!("for namespace {namespace}"),
            Scope::Mesh(_) => "for all namespaces".to_owned(),
        };
        let header = format!(
            "# Made by egressctl render, {for_whom}. ServiceEntries: {}, Sidecars: {}.\n# Edit those and render again; what \
             is written by hand belongs in --base.\n",
            rendered.len(),
            inventory.sidecars.iter().count(),
        );
        Ok((config.finish()?, header))
    }

    fn read<'a>(&'a self, objects: &[Object<'a>], findings: &mut Findings) -> Result<Inventory<'a>> {
        let mut entries: BTreeMap<(&str, &str), ServiceEntry<'_>> = BTreeMap::new();
        let mut sidecars: BTreeMap<(&str, &str), Sidecar<'_>> = BTreeMap::new();
        let mut namespaces = BTreeSet::new();
        for &object in objects {
            if let Some(mut entry) = findings.take(ServiceEntry::of(object)) {
                entry.namespace = self.namespace_of(object, findings);
                namespaces.extend(entry.export_to.iter().map(|to| to.text).filter(|to| !["*", ".", "~"].contains(to)));
                namespaces.insert(entry.namespace);
                if let Some(other) = entries.insert((entry.namespace, object.name()), entry) {
                    warn_of_twin(object, other.object, findings);
                }
            }
            if let Some(mut sidecar) = findings.take(Sidecar::of(object)) {
                sidecar.namespace = self.namespace_of(object, findings);
                namespaces.insert(sidecar.namespace);
                if let Some(other) = sidecars.insert((sidecar.namespace, object.name()), sidecar) {
                    warn_of_twin(object, other.object, findings);
                }
            }
            namespaces.insert(if object.kind == Kind::Namespace { object.name() } else { object.namespace() });
        }
        // Objects without one, and those of the cluster.
        namespaces.remove("");
        if !objects.iter().any(|object| object.kind == Kind::ServiceEntry) {
            let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
            let message = "there is no ServiceEntry in it, and an empty list would deny everything";
            return Err(Failure::new(format!("-f {}: {message}", files.join(" "))));
        }
        let is_external = |entry: &ServiceEntry<'_>| entry.location == Location::MeshExternal;
        let (externals, internals): (Vec<_>, Vec<_>) = entries.into_values().partition(is_external);
        Ok(Inventory {
            externals: externals.into_iter().filter_map(|entry| External::new(entry, findings)).collect(),
            internals,
            sidecars: Sidecars::new(sidecars.into_values().collect(), &self.root_namespace),
            namespaces,
            has_namespaces: objects.iter().any(|object| object.kind == Kind::Namespace),
        })
    }

    /// The namespace of an object; without one it is where `kubectl apply -n` would put it.
    fn namespace_of<'a>(&'a self, object: Object<'a>, findings: &mut Findings) -> &'a str {
        match (object.namespace(), &self.namespace) {
            ("", Some(namespace)) => namespace,
            ("", None) => {
                let message = "it is missing, and with --all-namespaces it counts; add it";
                findings.problem(object, object.node, "metadata.namespace", message);
                ""
            }
            (namespace, _) => namespace,
        }
    }

    /// The domains of what is inside the mesh and exported to someone here. They hold for every sidecar that has the
    /// configuration, and for all that is below them. Both are harmless: only where Istio has a route is something inside.
    fn internal(&self, inventory: &Inventory<'_>, findings: &mut Findings) -> Vec<String> {
        let mut domains = Vec::new();
        for entry in &inventory.internals {
            let sees = |namespace: &str| entry.is_visible_in(namespace, &self.default_export_to);
            let is_seen = match &self.namespace {
                Some(namespace) => sees(namespace),
                None => true,
            };
            if is_seen {
                domains.extend(internal_domains(entry, findings));
            }
        }
        domains
    }

    /// Warns of what Sidecars do that the configuration cannot say, and of an empty list.
    fn warn(&self, inventory: &Inventory<'_>, audiences: &Audiences<'_>, findings: &mut Findings) {
        let is_here = |sidecar: &Sidecar<'_>| {
            self.namespace.as_ref().is_none_or(|namespace| {
                sidecar.namespace == namespace
                    || (sidecar.namespace == self.root_namespace && sidecar.selector.is_none())
            })
        };
        for sidecar in inventory.sidecars.iter().filter(|sidecar| is_here(sidecar)) {
            for (index, listener) in sidecar.listeners.iter().enumerate() {
                if listener.port == ListenerPort::Other {
                    let message = "a proxy or a Unix socket; what is reached through it is not rendered";
                    findings.warn(sidecar.object, listener.node, format!("spec.egress[{index}].port"), message);
                }
            }
        }
        for sidecar in inventory.sidecars.unused().into_iter().filter(|sidecar| is_here(sidecar)) {
            let message = "another Sidecar of this namespace comes first in Istio; this one is for nobody";
            findings.warn(sidecar.object, sidecar.object.node, "spec", message);
        }
        if !audiences.withheld.is_empty() && self.namespace.is_none() && !inventory.has_namespaces {
            let known: Vec<&str> = inventory.namespaces.iter().copied().collect();
            findings.warn_generally(format!(
                "some namespaces do not see everything, so what the others see is listed by their names; those that are not \
                 in the files are not covered (known: {}). Add `kubectl get namespaces -o yaml` to -f",
                known.join(", ")
            ));
        }
        if rendered(audiences).is_empty() {
            let whom = self.namespace.as_ref().map_or("anybody".to_owned(), |name| format!("namespace {name}"));
            findings.warn_generally(format!("no ServiceEntry outside the mesh is visible to {whom}: it adds no entry"));
        }
    }

    fn print(&self, out: &mut dyn Write, config: Value, header: &str) -> Result<()> {
        let documents = match self.format {
            RenderFormat::Config => vec![config],
            RenderFormat::Kustomize => vec![manifest::patch(config)],
            RenderFormat::Wasmplugin => {
                let installation = Installation {
                    namespace: self.namespace.as_deref().unwrap_or(&self.root_namespace),
                    url: self.url.as_deref().unwrap_or_default(),
                    istio: self.istio_version,
                };
                installation.objects(&config)?
            }
        };
        if self.output == Encoding::Json {
            let document = match (self.format, documents.as_slice()) {
                (RenderFormat::Wasmplugin, objects) => {
                    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects})
                }
                (_, [document]) => document.clone(),
                (_, documents) => documents.into(),
            };
            writeln!(out, "{}", output::json(&document)?)?;
            return Ok(());
        }
        if self.format != RenderFormat::Config {
            write!(out, "{header}")?;
        }
        for (position, document) in documents.iter().enumerate() {
            if position > 0 {
                writeln!(out, "---")?;
            }
            write!(out, "{}", output::yaml(document)?)?;
        }
        Ok(())
    }
}

/// The positions of the ServiceEntries that somebody sees.
fn rendered(audiences: &Audiences<'_>) -> BTreeSet<usize> {
    let of_namespaces = audiences.namespaces.values().flatten();
    let of_workloads = audiences.workloads.iter().flat_map(|workloads| &workloads.more);
    audiences.everyone.iter().chain(of_namespaces).chain(of_workloads).map(|piece| piece.entry).collect()
}

fn warn_of_twin(object: Object<'_>, other: Object<'_>, findings: &mut Findings) {
    let message = format!("the same object stands at {}; keep one", other.location());
    findings.problem(object, object.node, "metadata.name", message);
}

fn mesh_domain(text: &str) -> std::result::Result<String, String> {
    match egress_filter::name::HostName::from_config(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(invalid) => Err(format!("{invalid}; use a name such as cluster.local")),
    }
}
