//! Applying: shows every change as a difference, asks, and sends all of them, each only if its object is still as it was
//! read. The server is asked first what it thinks of all of them, so that one that it refuses keeps the others from going.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::cluster::Cluster;
use crate::failure::{Failure, Result};
use crate::object::Kind;
use crate::output::{BAD, BOLD, DIM, GOOD, Outcome, WARNING, styled};

/// A change of one object.
#[derive(Debug)]
pub(super) struct Change {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
    /// What the object is called: `WasmPlugin istio-system/egress-http`.
    pub title: String,
    /// What is changed of it, as text, before.
    pub before: String,
    /// And after.
    pub after: String,
    /// What is sent: a JSON merge patch with nothing in it but what changes, and the version that it was made for.
    pub patch: Value,
    /// Who keeps the object elsewhere, and will set it back.
    pub owner: Option<&'static str>,
}

/// How far to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Consent {
    /// Change nothing.
    DryRun,
    /// Ask on the terminal.
    Ask,
    /// Given beforehand.
    Given,
}

/// Shows the changes and what there is to know about them, and makes them if that is what is wanted.
pub(super) fn run(
    cluster: &Cluster,
    changes: &[Change],
    notes: &[String],
    consent: Consent,
    out: &mut dyn Write,
) -> Result<Outcome> {
    for change in changes {
        write_difference(change, out)?;
    }
    // Before anything is asked or waited for.
    out.flush()?;
    for text in notes {
        note(text)?;
    }
    for change in changes {
        if let Some(owner) = change.owner {
            let text = format!("{} is managed by {owner}, which will set it back; change it there, too", change.title);
            say(&format!("{} {text}", styled(WARNING, "warning:")))?;
        }
    }
    let send = |change: &Change, is_dry_run| {
        cluster.patch(change.kind, &change.namespace, &change.name, &change.patch, is_dry_run)
    };
    for change in changes {
        send(change, true)?;
    }
    match consent {
        Consent::DryRun => {
            say(&styled(DIM, "dry run: the server would take this; nothing was changed"))?;
            return Ok(Outcome::Clean);
        }
        Consent::Ask if !is_confirmed(cluster.context())? => {
            say("nothing was changed")?;
            return Ok(Outcome::Findings);
        }
        Consent::Ask | Consent::Given => {}
    }
    let mut done: Vec<&str> = Vec::new();
    for change in changes {
        if let Err(failure) = send(change, false) {
            let so_far = if done.is_empty() {
                "nothing was changed".to_owned()
            } else {
                format!("changed so far: {}", done.join(", "))
            };
            return Err(Failure::new(format!("{failure}\n{so_far}")));
        }
        writeln!(out, "{} changed", change.title)?;
        done.push(&change.title);
    }
    Ok(Outcome::Clean)
}

/// A unified difference.
fn write_difference(change: &Change, out: &mut dyn Write) -> Result<()> {
    let difference = TextDiff::from_lines(&change.before, &change.after);
    let title = |sign: &str| styled(BOLD, &format!("{sign} {}", change.title));
    writeln!(out, "{}\n{}", title("---"), title("+++"))?;
    for hunk in difference.unified_diff().context_radius(3).iter_hunks() {
        writeln!(out, "{}", styled(DIM, &hunk.header().to_string()))?;
        for line in hunk.iter_changes() {
            let text = line.value().trim_end_matches(['\n', '\r']);
            match line.tag() {
                ChangeTag::Equal => writeln!(out, " {text}")?,
                ChangeTag::Delete => writeln!(out, "{}", styled(BAD, &format!("-{text}")))?,
                ChangeTag::Insert => writeln!(out, "{}", styled(GOOD, &format!("+{text}")))?,
            }
        }
    }
    writeln!(out)?;
    Ok(())
}

fn is_confirmed(context: &str) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::new(
            "nothing was changed: there is no terminal to ask on; pass --yes to apply or --dry-run to look",
        ));
    }
    let mut stderr = crate::output::stderr();
    write!(stderr, "Apply these changes to context {}? [y/N] ", styled(BOLD, context))?;
    stderr.flush()?;
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::new(format!("the answer cannot be read: {error}")))?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Says something beside the output.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(crate::output::stderr(), "{text}")?)
}

/// Says what else there is to know.
pub(super) fn note(text: &str) -> Result<()> {
    say(&format!("{} {text}", styled(BOLD, "note:")))
}
