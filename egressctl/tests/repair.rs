//! What `egressctl explain` says to change is enough: with the change made, the same destination is allowed.

#[path = "../../tests/support/random.rs"]
mod random;
#[path = "support/worlds.rs"]
mod worlds;

use std::fs;
use std::path::Path;
use std::process::Command;

use random::Random;
use serde_json::{Value, json};
use worlds::{Asked, configuration};

const WORLDS: usize = 100;
const DESTINATIONS: usize = 12;

#[test]
fn says_what_to_change_so_that_it_is_allowed() {
    let mut random = Random(20_261_127);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("repair");
    fs::create_dir_all(&folder).unwrap();
    let mut repaired = 0;
    for _ in 0..WORLDS {
        let config = configuration(&mut random);
        let urls: Vec<String> = (0..DESTINATIONS).map(|_| Asked::any(&mut random).url()).collect();
        for (url, answer) in urls.iter().zip(explain(&folder, &config, &urls)) {
            let Some(changed) = changed(&config, &answer) else { continue };
            let [after] = explain(&folder, &changed, std::slice::from_ref(url)).try_into().unwrap();
            assert_eq!(after["verdict"], "allowed", "{url}\n{config}\n{answer}\n{after}");
            repaired += 1;
        }
    }
    assert!(repaired > 400, "only {repaired}");
}

fn explain(folder: &Path, config: &Value, urls: &[String]) -> Vec<Value> {
    let file = folder.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_egressctl"));
    let output = command.args(["explain", "-n", "shop", "-o", "json", "-f"]).arg(&file).args(urls).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The configuration with what the answer says to add or to take out; `None` where that is for people to do.
fn changed(config: &Value, answer: &Value) -> Option<Value> {
    let repair = answer.get("toAllow").filter(|_| answer["reason"] != "deny_listed")?;
    let mut config = config.clone();
    let added = &repair["add"];
    if let Some(more) = added["registry"].as_array() {
        config["registry"].as_array_mut().unwrap().extend(more.iter().cloned());
        return Some(config);
    }
    let what = repair["what"].as_str().unwrap();
    let path = what.split([' ', ',']).find(|word| word.contains("registry["))?;
    let (at, field) = path.rsplit_once(']').unwrap();
    let entry = config.pointer_mut(&format!("/{}", at.replace("].", "/").replace('[', "/"))).unwrap();
    if field == ".expires" {
        entry.as_object_mut().unwrap().remove("expires").unwrap();
        return Some(config);
    }
    for (key, more) in added.as_object()? {
        if entry.get(key).is_none() {
            entry[key] = json!([]);
        }
        entry[key].as_array_mut().unwrap().extend(more.as_array().unwrap().iter().cloned());
    }
    Some(config)
}
