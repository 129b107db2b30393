//! `egressctl suggest --prometheus` against a real Prometheus, which scrapes what the filter's metrics look like.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything is waited for. Nothing takes nearly as long; a machine under load may.
const PATIENCE: Duration = Duration::from_secs(60);

/// An HTTP server that answers everything with the same page.
struct Page {
    port: u16,
    text: Arc<Mutex<String>>,
}

impl Page {
    fn serve(head: &'static str, text: &str) -> Page {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = Arc::new(Mutex::new(text.to_owned()));
        let shown = Arc::clone(&text);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), head, &shown.lock().unwrap().clone());
            }
        });
        Page { port, text }
    }

    fn show(&self, text: &str) {
        text.clone_into(&mut self.text.lock().unwrap());
    }
}

fn answer(mut stream: TcpStream, head: &str, text: &str) {
    read_request(&mut stream);
    let length = text.len();
    let _ = write!(stream, "HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
}

/// The head of a request, in lower case.
fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => request.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&request).to_ascii_lowercase()
}

const OK: &str = "200 OK\r\nContent-Type: text/plain; version=0.0.4";

struct Prometheus {
    child: Child,
    url: String,
    folder: PathBuf,
}

impl Prometheus {
    fn scraping(page: &Page) -> Prometheus {
        let folder = std::env::temp_dir().join(format!("egressctl-prometheus-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let config = format!(
            "scrape_configs:\n- job_name: egress-filter\n  scrape_interval: 1s\n  static_configs:\n  \
             - targets: ['127.0.0.1:{}']\n    labels: {{namespace: shop, pod: cart-7d4b9c6f5-x2x8k}}\n",
            page.port
        );
        fs::write(folder.join("prometheus.yaml"), config).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .expect("Prometheus does not start; `make setup` installs it");
        Prometheus { child, url: format!("http://127.0.0.1:{port}"), folder }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn egressctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_egressctl")).args(arguments).env_clear().output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    String::from_utf8(egressctl(arguments).stdout).unwrap()
}

fn stderr(arguments: &[&str]) -> String {
    String::from_utf8(egressctl(arguments).stderr).unwrap()
}

fn wait<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn series(metric: &str, host: &str, protocol: &str, verdict: &str, reason: &str, value: u32) -> String {
    format!(
        "{metric}{{egress_host=\"{host}\",egress_protocol=\"{protocol}\",egress_verdict=\"{verdict}\",egress_reason=\"{reason}\"}} {value}\n"
    )
}

const REQUESTS: &str = "egress_requests_total";
const CONNECTIONS: &str = "egress_connections_total";

fn exposition(news: u32) -> String {
    [
        series(REQUESTS, "news.example", "http", "denied", "not_listed", news),
        series(REQUESTS, "api.partner.example", "http", "allowed", "listed", 9),
        series(REQUESTS, "169.254.169.254", "http", "denied", "deny_listed", 1),
        series(REQUESTS, "*.old.example", "http", "denied", "expired", 4),
        series(REQUESTS, "mesh", "http", "allowed", "mesh_internal", 1000),
        series(CONNECTIONS, "tls.example", "tls", "would_deny", "not_listed", 2),
        series(CONNECTIONS, "plain.example", "http", "denied", "not_listed", 1),
        series(CONNECTIONS, "192.0.2.7:3306", "tcp", "denied", "server_first", 3),
        series(CONNECTIONS, "192.0.2.0/24", "tcp", "allowed", "listed", 5),
        series(CONNECTIONS, "other", "tls", "denied", "not_listed", 7),
    ]
    .concat()
}

/// The columns of the rows, without the times.
fn rows(text: &str) -> Vec<String> {
    let cells =
        |line: &str| line.replace(" (assumed)", "(assumed)").split_whitespace().take(7).collect::<Vec<_>>().join(" ");
    text.lines().skip(1).map(cells).collect()
}

#[test]
fn suggests_what_a_real_prometheus_has_seen_denied() {
    let page = Page::serve(OK, &exposition(5));
    let prometheus = Prometheus::scraping(&page);
    let url = prometheus.url.as_str();
    let text = wait("the first scrape", || {
        let text = stdout(&["suggest", "--prometheus", url, "--since", "1h"]);
        text.contains("news.example").then_some(text)
    });
    // Counters that appear with a value have counted that much, though `increase` does not see it.
    let expected = [
        "shop cart news.example 80(assumed) HTTP not_listed 5",
        "shop cart tls.example 443(assumed) TLS not_listed 2",
        "shop cart plain.example 80(assumed) HTTP not_listed 1",
        "shop cart 192.0.2.7 3306 TCP server_first 3",
    ];
    let mut actual = rows(&text);
    actual.sort();
    let mut sorted = expected.to_vec();
    sorted.sort_unstable();
    assert_eq!(actual, sorted);
    let told = stderr(&["suggest", "--prometheus", url, "--since", "1h"]);
    assert!(told.contains("not suggested: 169.254.169.254:80, 1 call of shop/cart: the deny list has it"), "{told}");
    assert!(told.contains("note: the hosts of 7 calls are hidden in \"other\""), "{told}");
    assert!(told.contains("note: 4 calls matched an entry's wildcard or CIDR"), "{told}");

    // What grew while it was watched, and what did not.
    wait("the counters to have been there for 5 seconds", || {
        (stdout(&["suggest", "--prometheus", url, "--since", "5s"]) == "nothing is missing\n").then_some(())
    });
    page.show(&exposition(1005));
    let seen = wait("the counter to have grown within 5 seconds", || {
        let text = stdout(&["suggest", "--prometheus", url, "--since", "5s", "--as", "rows", "-o", "json"]);
        let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
        let rows = answer["suggestions"].as_array()?.clone();
        (rows.len() == 1 && rows[0]["calls"].as_u64()? > 500).then(|| rows[0].clone())
    });
    assert_eq!(seen["host"], "news.example");
    assert!(seen["firstSeen"].is_string() && seen["lastSeen"].is_string(), "{seen}");

    // Entries that were used, and those that were not.
    let list = prometheus.folder.join("list.yaml");
    fs::write(&list, "registry:\n- hosts: [api.partner.example, Unused.example]\n- addresses: [192.0.2.9/24]\n")
        .unwrap();
    let output = egressctl(&["suggest", "--stale", "-f", list.to_str().unwrap(), "--prometheus", url, "--since", "1h"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("never in 14 calls"), "{text}");
    assert_eq!(rows(&text).len(), 1, "{text}");
    assert!(text.contains("unused.example"), "{text}");

    // A label that Prometheus refuses, a time before there was anything, and what is not there.
    let told = stderr(&["suggest", "--prometheus", url, "--at", "2020-01-01T00:00:00Z"]);
    assert!(told.contains("has no series egress_requests_total or egress_connections_total"), "{told}");
    let told = stderr(&["suggest", "--prometheus", &format!("{url}/nowhere")]);
    assert!(told.contains("answers 404 Not Found to /api/v1/query; is this Prometheus?"), "{told}");
}

#[test]
fn says_what_is_wrong_with_what_is_no_prometheus() {
    for (head, body, expected) in [
        (OK, "<html>", "the answer to /api/v1/query is not one of Prometheus"),
        ("503 Service Unavailable", "", "answers 503 Service Unavailable to /api/v1/query; is this Prometheus?"),
        (
            "422 Unprocessable Entity",
            r#"{"status":"error","errorType":"execution","error":"query timed out in expression evaluation"}"#,
            "Prometheus says: query timed out in expression evaluation",
        ),
    ] {
        let page = Page::serve(head, body);
        let output = egressctl(&["suggest", "--prometheus", &format!("http://127.0.0.1:{}/", page.port)]);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(expected), "{told}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn sends_the_token_of_a_file_with_each_question() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(Result::unwrap) {
            heard.lock().unwrap().push(read_request(&mut stream));
            let text = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
            let _ = stream.write_all(format!("{head}{text}").as_bytes());
        }
    });
    let token = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("token");
    fs::write(&token, "s3cret\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_egressctl"))
        .args(["suggest", "--prometheus", &url, "--bearer-token-file"])
        .arg(&token)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("has no series"), "{errors}");
    let asked = asked.lock().unwrap();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|request| request.contains("\r\nauthorization: bearer s3cret\r\n")), "{asked:?}");
}
