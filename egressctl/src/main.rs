//! The program: parses the command line, runs the command, and says by its exit code what came of it.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use egressctl::cli::Cli;
use egressctl::output::{BAD, Outcome, styled};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = std::io::BufWriter::new(egressctl::output::stdout());
    let result = cli.run(&mut out).and_then(|outcome| Ok(out.flush().map(|()| outcome)?));
    match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if this fails, too.
            let _ = writeln!(egressctl::output::stderr(), "{} {failure}", styled(BAD, "error:"));
            ExitCode::from(2)
        }
    }
}
