//! Golden output of every command: the real program is run, and what it prints, to both streams, is compared with files.
//!
//! `tests/golden/inputs` has files that cases share. `tests/golden/COMMAND/CASE` has `cmd`, the arguments in one line, split at spaces; `stdin` if the case reads it; and
//! what is expected: `stdout`, `stderr` (nothing if there is no such file) and `status` (0 if there is no such file). The
//! program runs in the case's folder. `BLESS=1 cargo test -p egressctl --test golden` writes the expectations anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn every_command_prints_what_its_golden_files_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("BLESS").is_some();
    let mut cases: BTreeMap<String, usize> = BTreeMap::new();
    let mut differences = Vec::new();
    for command in folders(&root).into_iter().filter(|folder| !folder.ends_with("inputs")) {
        for case in folders(&command) {
            let name = case.strip_prefix(&root).unwrap().display().to_string();
            *cases.entry(name.split('/').next().unwrap().to_owned()).or_default() += 1;
            for (file, actual) in run(&case) {
                let path = case.join(file);
                if update {
                    write(&path, &actual);
                } else {
                    let expected = fs::read_to_string(&path).unwrap_or_else(|_| default_of(file).to_owned());
                    if expected != actual {
                        differences.push(format!("--- {name}/{file}: expected\n{expected}--- actual\n{actual}"));
                    }
                }
            }
        }
    }
    assert!(differences.is_empty(), "BLESS=1 writes them anew, if they are right:\n{}", differences.join("\n"));
    for command in COMMANDS {
        assert!(cases.contains_key(*command), "no golden case of {command}");
    }
}

/// The commands that must have cases.
const COMMANDS: &[&str] =
    &["check", "completion", "diff", "explain", "outbound-traffic-policy", "render", "replay", "suggest"];

fn run(case: &Path) -> [(&'static str, String); 3] {
    let words = fs::read_to_string(case.join("cmd")).unwrap_or_else(|error| panic!("{}/cmd: {error}", case.display()));
    let stdin = fs::File::open(case.join("stdin")).map_or_else(|_| Stdio::null(), Stdio::from);
    let output = Command::new(env!("CARGO_BIN_EXE_egressctl"))
        .args(words.split_whitespace())
        .current_dir(case)
        .env_clear()
        .stdin(stdin)
        .output()
        .unwrap();
    let status = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    [("stdout", text(output.stdout)), ("stderr", text(output.stderr)), ("status", format!("{status}\n"))]
}

fn default_of(file: &str) -> &'static str {
    if file == "status" { "0\n" } else { "" }
}

/// What is as it is without a file needs none.
fn write(path: &Path, actual: &str) {
    if actual == default_of(path.file_name().unwrap().to_str().unwrap()) {
        let _ = fs::remove_file(path);
    } else {
        fs::write(path, actual).unwrap();
    }
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}
