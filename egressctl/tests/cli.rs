//! What all commands share: help, completion, colours, and a reader that goes away.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

fn egressctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egressctl"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn commands() -> Vec<String> {
    let help = text(&egressctl(&["--help"]).output().unwrap());
    let listed = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn the_help_of_every_command_has_examples_and_exit_codes() {
    let commands = commands();
    for expected in ["check", "diff", "explain", "outbound-traffic-policy", "render", "replay", "suggest"] {
        assert!(commands.iter().any(|name| name == expected), "{expected} is not among {commands:?}");
        let output = egressctl(&[expected, "--help"]).output().unwrap();
        assert!(output.status.success());
        let help = text(&output);
        assert!(help.contains("Examples:\n"), "{expected}: {help}");
        assert!(help.contains("Exit code"), "{expected}: {help}");
    }
}

#[test]
fn bash_takes_the_completion_script_and_every_shell_has_one() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = egressctl(&["completion", shell]).output().unwrap();
        assert!(output.status.success(), "{shell}");
        assert!(text(&output).contains("outbound-traffic-policy"), "{shell}");
    }
    let script = text(&egressctl(&["completion", "bash"]).output().unwrap());
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let checked = bash.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn colours_are_for_terminals_or_who_asks_for_them() {
    let rules = |variables: &[(&str, &str)]| {
        text(&egressctl(&["check", "--rules"]).envs(variables.iter().copied()).output().unwrap())
    };
    assert!(!rules(&[("TERM", "xterm")]).contains('\u{1b}'));
    assert!(rules(&[("CLICOLOR_FORCE", "1")]).contains('\u{1b}'));
    assert!(!rules(&[("NO_COLOR", "1"), ("TERM", "xterm")]).contains('\u{1b}'));
}

/// More than a pipe holds, so that it is still writing when nobody reads any more.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut list = "registry:\n".to_owned();
    for number in 0..5_000 {
        list.push_str(&format!("- hosts: [\"*.host-{number}.example\"]\n"));
    }
    let mut child =
        egressctl(&["check", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(list.as_bytes()).unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("EG"), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
