//! Real TLS clients through the filter. Each checks the certificate of the listed host, so it got there and nobody else
//! answered; each fails at a host that is not listed, of which not a byte left. `make setup-clients` installs them.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::json;
use support::envoy::{Envoy, new_folder};
use support::sidecar::{self, CATCH_ALL, ConnectMode, TcpListener};
use support::tls::TlsServer;

const LISTED: &str = "api.listed.test";
const OTHER: &str = "api.other.test";

struct Mesh {
    envoy: Envoy,
    outside: TlsServer,
    port: u16,
    /// The certificate of the outside world's authority.
    authority: PathBuf,
}

impl Mesh {
    fn start() -> Mesh {
        let outside = TlsServer::start(&[LISTED, OTHER]);
        let folder = new_folder();
        let authority = folder.join("authority.pem");
        std::fs::write(&authority, &outside.authority).unwrap();
        let config = json!({"registry": [{"hosts": ["*.listed.test"]}]});
        let mut listener = TcpListener {
            name: "tcp",
            chain: CATCH_ALL,
            cluster: "PassthroughCluster",
            mode: ConnectMode::Immediate,
            filters: vec![sidecar::tcp_filter(&config.to_string())],
            access_log: &folder.join("access.log"),
        }
        .build();
        // These clients write no PROXY header: their destination is the listener's own address.
        listener["listener_filters"] = json!([]);
        let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &[listener], outside.address));
        let port = envoy.port("tcp");
        Mesh { envoy, outside, port, authority }
    }

    /// How many connections were counted so.
    fn counted(&self, host: &str, verdict: &str, reason: &str) -> u64 {
        self.envoy.metric(&format!(
            "egress_connections_total{{egress_host=\"{host}\",egress_protocol=\"tls\",\
             egress_reason=\"{reason}\",egress_verdict=\"{verdict}\"}}"
        ))
    }
}

/// `client` makes the command that gets a page from a host.
fn try_client(client: impl Fn(&Mesh, &str) -> Vec<String>) -> (Output, Output) {
    let mesh = Mesh::start();
    let denied = run(&client(&mesh, OTHER));
    assert_eq!(mesh.outside.bytes(), 0, "{denied:?}");
    assert!(mesh.counted(OTHER, "denied", "not_listed") >= 1, "{denied:?}");
    let allowed = run(&client(&mesh, LISTED));
    let page = String::from_utf8_lossy(&allowed.stdout);
    assert!(page.contains(&format!("<p>reached {LISTED}</p>")), "{allowed:?}");
    assert!(mesh.counted("*.listed.test", "allowed", "listed") >= 1, "{allowed:?}");
    assert!(!String::from_utf8_lossy(&denied.stdout).contains("reached"), "{denied:?}");
    (denied, allowed)
}

/// The same for a client whose status tells whether it succeeded.
fn try_strict_client(client: impl Fn(&Mesh, &str) -> Vec<String>) {
    let (denied, allowed) = try_client(client);
    assert!(!denied.status.success(), "{denied:?}");
    assert!(allowed.status.success(), "{allowed:?}");
}

/// Runs a command for two minutes at most.
fn run(command: &[String]) -> Output {
    let program = &command[0];
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|folder| folder.join(program).is_file());
    assert!(found, "\n\n{program} is missing. Run `make setup-clients`.\n");
    Command::new("timeout").args(["--kill-after=5", "120"]).args(command).stdin(Stdio::null()).output().unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn source(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name).display().to_string()
}

#[test]
fn curl() {
    try_strict_client(|Mesh { port, authority, .. }, host| {
        words(&format!(
            "curl --silent --show-error --noproxy * --cacert {} --connect-to ::127.0.0.1:{port} https://{host}/",
            authority.display()
        ))
    });
}

#[test]
fn openssl() {
    try_strict_client(|Mesh { port, authority, .. }, host| {
        let client = format!(
            "openssl s_client -quiet -verify_return_error -CAfile {} -verify_hostname {host} -servername {host} \
             -connect 127.0.0.1:{port}",
            authority.display()
        );
        let request = format!("GET / HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n");
        vec!["sh".to_owned(), "-c".to_owned(), format!("printf '{request}' | {client}")]
    });
}

#[test]
fn go() {
    try_strict_client(|Mesh { port, authority, .. }, host| {
        words(&format!("go run {} {host} {port} {}", source("main.go"), authority.display()))
    });
}

#[test]
fn java() {
    try_strict_client(|Mesh { port, authority, .. }, host| {
        words(&format!("java {} {host} {port} {}", source("Client.java"), authority.display()))
    });
}

/// A browser's status tells nothing.
#[test]
fn chromium() {
    let (denied, _) = try_client(|Mesh { port, envoy, .. }, host| {
        let mut command = words(&format!(
            "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
             --disable-background-networking --disable-component-update --disable-sync --no-proxy-server \
             --ignore-certificate-errors --user-data-dir={}",
            envoy.folder.join(format!("chromium-{host}")).display()
        ));
        // Every name leads to the sidecar, as with iptables.
        command.push(format!("--host-resolver-rules=MAP * 127.0.0.1:{port}"));
        command.extend(words(&format!("--dump-dom https://{host}/")));
        command
    });
    assert!(String::from_utf8_lossy(&denied.stderr).contains("net::ERR_CONNECTION_"), "{denied:?}");
}
