//! Envoy as a child process: on ports of its own choosing, ready before it is used, gone when it is dropped.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client;

/// How long anything is waited for. Nothing takes nearly as long; a machine under load may.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Envoy {
    child: Child,
    pub folder: PathBuf,
    admin: u16,
}

impl Envoy {
    /// Starts Envoy with a bootstrap that has no admin interface yet, and waits until it is ready.
    pub fn start(bootstrap: Value) -> Envoy {
        Self::start_in(new_folder(), bootstrap)
    }

    pub fn start_in(folder: PathBuf, mut bootstrap: Value) -> Envoy {
        bootstrap["admin"] = json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}});
        let config = folder.join("bootstrap.json");
        fs::write(&config, serde_json::to_string_pretty(&bootstrap).unwrap()).unwrap();
        let admin_file = folder.join("admin-address");
        let child = Command::new(binary())
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            .args(["--component-log-level", "wasm:info", "--file-flush-interval-msec", "20"])
            .arg("--config-path")
            .arg(&config)
            .arg("--log-path")
            .arg(folder.join("envoy.log"))
            .arg("--admin-address-path")
            .arg(&admin_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr")).unwrap())
            .spawn()
            .expect("Envoy does not start");
        let mut envoy = Envoy { child, folder, admin: 0 };
        envoy.admin = envoy.wait("the admin interface", || {
            let address = fs::read_to_string(&admin_file).ok()?;
            address.rsplit_once(':')?.1.trim().parse().ok()
        });
        envoy.wait("ready", || (client::try_get(envoy.admin, "/ready")?.0 == 200).then_some(()));
        envoy
    }

    /// Whether this Envoy's `tcp_proxy` has `upstream_connect_mode`: from 1.37 on.
    pub fn has_on_downstream_data() -> bool {
        let output = Command::new(binary()).arg("--version").output().expect("Envoy does not start");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // `.../envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
        let version = text.split('/').find_map(|part| part.split_once('.').filter(|(major, _)| *major == "1"));
        let minor = version.and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
        minor.unwrap_or_else(|| panic!("no version in {text:?}")) >= 37
    }

    /// Whether this Envoy takes a bootstrap.
    pub fn accepts(folder: &Path, bootstrap: &Value) -> bool {
        let config = folder.join("bootstrap.json");
        fs::write(&config, bootstrap.to_string()).unwrap();
        let mut validate = Command::new(binary());
        validate.args(["--disable-hot-restart", "--mode", "validate", "--config-path"]).arg(&config);
        validate.output().expect("Envoy does not start").status.success()
    }

    /// The port that a listener with port 0 got.
    pub fn port(&self, listener: &str) -> u16 {
        let listeners: Value = serde_json::from_str(&self.admin("/listeners?format=json")).unwrap();
        let all = listeners["listener_statuses"].as_array().unwrap();
        let status = all.iter().find(|status| status["name"] == listener);
        let status = status.unwrap_or_else(|| panic!("no listener {listener}: {listeners}"));
        status["local_address"]["socket_address"]["port_value"].as_u64().unwrap().try_into().unwrap()
    }

    /// The body of a page of the admin interface.
    pub fn admin(&self, path: &str) -> String {
        let (status, body) = client::try_get(self.admin, path).expect("no answer from the admin interface");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Series of `/stats/prometheus` whose name starts with `prefix`, as name with labels and value; labels are sorted.
    pub fn metrics(&self, prefix: &str) -> Vec<(String, u64)> {
        let text = self.admin("/stats/prometheus");
        let series = text.lines().filter(|line| line.starts_with(prefix));
        let mut series: Vec<(String, u64)> = series
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (sorted_labels(name), value.parse::<f64>().unwrap() as u64))
            .collect();
        series.sort();
        series
    }

    /// The value of one series, its labels in order; 0 while there is none.
    pub fn metric(&self, series: &str) -> u64 {
        let name = series.split('{').next().unwrap();
        self.metrics(name).iter().find(|(other, _)| other == series).map_or(0, |(_, value)| *value)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` has an answer.
    pub fn wait<T>(&self, what: &str, ready: impl FnMut() -> Option<T>) -> T {
        match poll(ready) {
            Some(answer) => answer,
            None => panic!(
                "not within {PATIENCE:?}: {what}\nin {}\n{}{}",
                self.folder.display(),
                self.log(),
                fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
            ),
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// A series with its labels in order: Envoy's own order is none.
fn sorted_labels(series: &str) -> String {
    let Some((name, labels)) = series.strip_suffix('}').and_then(|series| series.split_once('{')) else {
        return series.to_owned();
    };
    if labels.is_empty() {
        return name.to_owned();
    }
    let mut labels: Vec<&str> = labels.split_inclusive("\",").map(|label| label.trim_end_matches(',')).collect();
    labels.sort_unstable();
    format!("{name}{{{}}}", labels.join(","))
}

/// Asks until there is an answer; `None` after [`PATIENCE`].
pub fn poll<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ready() {
            return Some(answer);
        }
        if start.elapsed() > PATIENCE {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An empty folder of this test's own; it stays where a test failed.
pub fn new_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The project's root, from whatever package of the workspace the test is in.
pub fn repository() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|folder| folder.join("Cargo.lock").exists()).unwrap().to_owned()
}

/// The filter; `make wasm` makes it.
pub fn wasm() -> PathBuf {
    needed("EGRESS_FILTER_WASM", "dist/egress-filter.wasm", "make wasm")
}

/// Envoy; `make setup` installs it.
pub fn binary() -> PathBuf {
    let default = repository().join(".venv/envoy/1.40.0/envoy/_bin/envoy");
    needed("ENVOY", default.to_str().unwrap(), "make setup")
}

pub fn needed(variable: &str, default: &str, how: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
    let path = repository().join(path);
    let mut first = [0; 4];
    let readable = fs::File::open(&path).and_then(|mut file| file.read_exact(&mut first));
    assert!(readable.is_ok(), "\n\n{} is missing. Run `{how}`, or set {variable}.\n", path.display());
    path
}
