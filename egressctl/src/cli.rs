//! The command line: which commands there are, and what all of them share.

use std::io::Write;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::failure::Result;
use crate::outbound_traffic_policy::OutboundTrafficPolicyArgs;
use crate::output::Outcome;

/// Who may reach what outside the mesh, and why.
#[derive(Debug, Parser)]
#[command(name = "egressctl", version, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show or set who may reach what is not registered: the mesh's policy, and what the filter enforces under it
    OutboundTrafficPolicy(OutboundTrafficPolicyArgs),
    /// Say what was called and is not listed, and write the entries for it; or which entries nobody uses
    Suggest(Box<crate::suggest::SuggestArgs>),
    /// Make the filter's configuration from ServiceEntries and Sidecars
    Render(crate::render::RenderArgs),
    /// Find what is wrong with configurations, plugins and ServiceEntries, and what is probably not meant
    Check(Box<crate::check::CheckArgs>),
    /// Say what changes in reach from one configuration to another
    Diff(Box<crate::diff::DiffArgs>),
    /// Say what a candidate would have denied or newly allowed of the calls in access logs
    Replay(Box<crate::replay::ReplayArgs>),
    /// Say what becomes of a destination, why, and what to change
    Explain(Box<crate::explain::ExplainArgs>),
    /// Print a completion script for a shell
    ///
    /// For bash: source <(egressctl completion bash)
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// What is for the whole mesh.
#[derive(Args, Clone, Debug, Default)]
pub struct MeshArgs {
    /// Istio's root namespace: what stands there is for the whole mesh
    #[arg(long, value_name = "NAMESPACE", default_value = "istio-system")]
    pub root_namespace: String,
}

/// Which cluster to ask.
#[derive(Args, Clone, Debug, Default)]
pub struct ClusterArgs {
    /// Path of the kubeconfig file, instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Its mesh
    #[command(flatten)]
    pub mesh: MeshArgs,
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from its work.
    pub fn run(self, out: &mut dyn Write) -> Result<Outcome> {
        match self.command {
            Command::Check(args) => crate::check::run(&args, out),
            Command::Diff(args) => crate::diff::run(&args, out),
            Command::Explain(args) => crate::explain::run(&args, out),
            Command::Render(args) => args.run(out),
            Command::Replay(args) => crate::replay::run(&args, out),
            Command::Suggest(args) => crate::suggest::run(&args, out),
            Command::Completion { shell } => {
                // Into memory first: clap_complete panics where it cannot write.
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "egressctl", &mut script);
                out.write_all(&script)?;
                Ok(Outcome::Clean)
            }
            Command::OutboundTrafficPolicy(args) => args.run(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_completion_script_that_cannot_be_written_is_a_failure() {
        assert!(Cli::parse_from(["egressctl", "completion", "bash"]).run(&mut Full).is_err());
    }
}
