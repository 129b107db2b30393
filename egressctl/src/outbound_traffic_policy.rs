//! `egressctl outbound-traffic-policy`: shows and sets what happens to what is not registered, in the mesh and by namespace.
//!
//! What a configuration means is asked of the filter's own reader. What is set is composed first, judged by that reader,
//! shown as a difference, and sent only then.

use std::io::Write;

use clap::{ArgGroup, Args, ValueEnum};
use egress_filter::config::KnownNode;
use egress_filter::policy::{Enforcement, Mode};

use crate::cli::ClusterArgs;
use crate::cluster::Cluster;
use crate::failure::{Failure, Result};
use crate::object::Kind;
use crate::output::{Format, Outcome};

mod apply;
mod change;
mod enforced;
mod mesh_config;
mod plugins;
mod set;
mod show;

/// The command line of `outbound-traffic-policy`.
#[derive(Args, Debug)]
#[command(
    group = ArgGroup::new("change").args(["policy", "enforcement"]).multiple(true),
    after_help = EXAMPLES,
)]
pub struct OutboundTrafficPolicyArgs {
    /// What to set: only what is registered, or all but what is denied. Without it the policy is shown
    #[arg(value_enum)]
    policy: Option<PolicyName>,
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Set what happens to what is denied: it is only reported, or it does not pass
    #[arg(long, value_enum)]
    enforcement: Option<EnforcementName>,
    /// Set Istio's own policy, in its MeshConfig, as well
    #[arg(long, requires = "policy", conflicts_with = "namespace")]
    mesh_config: bool,
    /// ConfigMap with Istio's MeshConfig; a revision has one of its own, such as istio-canary
    #[arg(long, value_name = "NAME", default_value = "istio")]
    mesh_config_map: String,
    /// Show what would change, ask the server whether it would take it, and change nothing
    #[arg(long, requires = "change")]
    dry_run: bool,
    /// Do not ask before changing
    #[arg(short, long, requires = "change")]
    yes: bool,
    /// How to print what is shown
    #[arg(short, long, value_enum, default_value_t, conflicts_with = "change")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

const EXAMPLES: &str = "\
Examples:
  What holds, in every namespace, and for one of them for programs:
    egressctl outbound-traffic-policy
    egressctl outbound-traffic-policy -n shop -o yaml

  What restricting the whole mesh would change; then do it:
    egressctl outbound-traffic-policy restricted --dry-run
    egressctl outbound-traffic-policy restricted

  One namespace is ready to enforce:
    egressctl outbound-traffic-policy --enforcement enforce -n shop

  All is allowed again, by Istio itself as well:
    egressctl outbound-traffic-policy allowed --mesh-config --yes

Exit codes: 0 shown or set; 1 the filter refuses a configuration, or you said no; 2 failure.";

/// What may be reached that is not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PolicyName {
    /// Nothing: REGISTRY_ONLY
    Restricted,
    /// Everything: ALLOW_ANY
    Allowed,
}

/// What happens to what is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EnforcementName {
    /// It passes, and is counted and logged
    Report,
    /// It does not pass
    Enforce,
}

/// What is to be set; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    mode: Option<Mode>,
    enforcement: Option<Enforcement>,
}

impl Wanted {
    /// Whether this is what holds already.
    fn holds(self, mode: Mode, enforcement: Enforcement) -> bool {
        self.mode.is_none_or(|wanted| wanted == mode) && self.enforcement.is_none_or(|wanted| wanted == enforcement)
    }
}

impl OutboundTrafficPolicyArgs {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// The cluster does not answer; there is nothing to set; the filter or the server would refuse the change.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let cluster = Cluster::connect(&self.cluster)?;
        if let Some(namespace) = &self.namespace
            && cluster.find(Kind::Namespace, None, namespace)?.is_none()
        {
            return Err(Failure::new(format!(
                "context {}: there is no namespace {namespace}; `kubectl get namespaces` lists those that are there",
                cluster.context()
            )));
        }
        let wanted = Wanted {
            mode: self.policy.map(|policy| match policy {
                PolicyName::Restricted => Mode::RegistryOnly,
                PolicyName::Allowed => Mode::AllowAny,
            }),
            enforcement: self.enforcement.map(|enforcement| match enforcement {
                EnforcementName::Report => Enforcement::Report,
                EnforcementName::Enforce => Enforcement::Enforce,
            }),
        };
        if wanted == Wanted::default() { show::run(self, &cluster, out) } else { set::run(self, &cluster, wanted, out) }
    }
}

/// A mode as it is written in configurations.
fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::RegistryOnly => "REGISTRY_ONLY",
        Mode::AllowAny => "ALLOW_ANY",
    }
}

/// An enforcement as it is written in configurations.
fn enforcement_name(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Enforce => "ENFORCE",
        Enforcement::Report => "REPORT",
    }
}

/// Workloads of a namespace for people: empty for all that nothing tells apart, else `workload crawler, app=web`.
fn workloads_of(node: &KnownNode) -> String {
    let workload = node.workload.iter().map(|workload| format!("workload {workload}"));
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    workload.chain(labels).collect::<Vec<_>>().join(", ")
}
