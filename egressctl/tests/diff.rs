//! `egressctl diff` misses no change in reach: where `explain` allows by one configuration what it denies by another, and
//! the other way round, there must be a difference.

#[path = "../../tests/support/random.rs"]
mod random;
#[path = "support/worlds.rs"]
mod worlds;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use random::Random;
use serde_json::{Value, json};
use worlds::{Asked, configuration, entry};

const PAIRS: usize = 300;
const DESTINATIONS: usize = 60;

#[test]
fn reports_a_change_wherever_a_destination_is_decided_otherwise() {
    let mut random = Random(20_261_126);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diff");
    fs::create_dir_all(&folder).unwrap();
    let (mut same, mut different) = (0, 0);
    for pair in 0..PAIRS {
        let old = configuration(&mut random);
        let new = changed(&old, &mut random);
        let files = [("old.json", &old), ("new.json", &new)].map(|(name, config)| {
            let file = folder.join(name);
            fs::write(&file, config.to_string()).unwrap();
            file
        });
        let urls: Vec<String> = (0..DESTINATIONS).map(|_| Asked::any(&mut random).url()).collect();
        let [before, after] = files.each_ref().map(|file| allowed(file, &urls));
        let output = run(&["diff".as_ref(), files[0].as_os_str(), files[1].as_os_str()]);
        let says = String::from_utf8_lossy(&output.stdout).into_owned();
        let context = format!("pair {pair}\n{old}\n{new}\n{says}");
        let has_changed = match output.status.code() {
            Some(0) => false,
            Some(1) => true,
            other => panic!("{other:?}: {context}\n{}", String::from_utf8_lossy(&output.stderr)),
        };
        if before == after {
            same += 1;
        } else {
            different += 1;
            let url = urls.iter().zip(before.iter().zip(&after)).find(|(_, (before, after))| before != after);
            assert!(has_changed, "{url:?}: {context}");
        }
        assert_eq!(has_changed, !says.starts_with("no change in reach"), "{context}");
    }
    assert!(same > 20 && different > 100, "{same} pairs were the same, {different} were not");
}

/// Which of the URLs are allowed.
fn allowed(file: &Path, urls: &[String]) -> Vec<bool> {
    let mut arguments =
        vec!["explain".as_ref(), "-n".as_ref(), "shop".as_ref(), "-o".as_ref(), "json".as_ref(), "-f".as_ref()];
    arguments.push(file.as_os_str());
    arguments.extend(urls.iter().map(std::ffi::OsStr::new));
    let output = run(&arguments);
    let answers: Vec<Value> = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    answers.iter().map(|answer| answer["verdict"] == "allowed").collect()
}

fn run(arguments: &[&std::ffi::OsStr]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egressctl")).args(arguments).output().unwrap()
}

/// The same with one thing changed, which may come to nothing.
fn changed(old: &Value, random: &mut Random) -> Value {
    let mut new = old.clone();
    let list = if random.below(4) == 0 { "deny" } else { "registry" };
    let other = entry(random, list == "registry");
    let entries = new[list].as_array_mut().unwrap();
    match random.below(5) {
        0 if !entries.is_empty() => _ = entries.remove(random.below(entries.len())),
        1 => entries.reverse(),
        2 if !entries.is_empty() => {
            let position = random.below(entries.len());
            entries[position] = other;
        }
        3 => {
            let again = entries.first().cloned().unwrap_or(other);
            entries.push(again);
        }
        _ => {
            entries.push(other);
            if random.below(6) == 0 {
                new["spoofProtection"] = json!(old["spoofProtection"] != json!(true));
            }
        }
    }
    new
}
