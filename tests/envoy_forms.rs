//! The forms that a request can have: each is decided on its authority, in real Envoy, and none traps the VM or reaches
//! the outside when it is denied.

mod support;

use std::io::{Read, Write};
use std::net::SocketAddr;

use serde_json::json;
use support::client::{self, Response};
use support::envoy::{Envoy, new_folder};
use support::sidecar::{self, MeshMode};
use support::upstream::Upstream;

const DESTINATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)), 80);

struct Mesh {
    envoy: Envoy,
    upstream: Upstream,
    port: u16,
}

impl Mesh {
    /// `listed.test` is listed on any port, `tunnel.test` on 8443.
    fn start() -> Mesh {
        let upstream = Upstream::start();
        let folder = new_folder();
        let config = json!({"registry": [
            {"hosts": ["listed.test"]},
            {"hosts": ["tunnel.test"], "ports": [{"number": 8443}]},
        ]});
        let filter = sidecar::http_filter(&config.to_string());
        let listener = sidecar::http_listener("http", MeshMode::AllowAny, &[filter], &folder.join("access.log"));
        let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &[listener], upstream.address));
        let port = envoy.port("http");
        Mesh { envoy, upstream, port }
    }

    fn exchange(&self, request: impl AsRef<[u8]>) -> Response {
        client::exchange(self.port, DESTINATION, request.as_ref())
    }

    #[track_caller]
    fn allows(&self, request: impl AsRef<[u8]>) {
        let response = self.exchange(request);
        assert_eq!((response.status, response.text().as_str()), (200, "outside: listed.test\n"), "{response:?}");
    }

    /// Nothing of a denied request may reach the outside, not even a connection.
    #[track_caller]
    fn denies(&self, request: impl AsRef<[u8]>, reason: &str) {
        let before = (self.upstream.connections(), self.upstream.bytes());
        let response = self.exchange(request);
        assert_eq!((response.status, response.header("x-egress-denied")), (403, Some(reason)), "{response:?}");
        assert_eq!((self.upstream.connections(), self.upstream.bytes()), before);
    }

    /// Envoy itself answers, without asking the filter.
    #[track_caller]
    fn envoy_refuses(&self, request: impl AsRef<[u8]>, status: u16) {
        let before = self.upstream.connections();
        let response = self.exchange(request);
        assert_eq!((response.status, response.header("x-egress-denied")), (status, None), "{response:?}");
        assert_eq!(self.upstream.connections(), before);
    }

    fn still_works(&self) {
        self.allows("GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n");
        let reloads = self.envoy.admin("/stats?filter=vm_reload");
        assert!(reloads.lines().count() >= 4 && reloads.lines().all(|line| line.ends_with(": 0")), "{reloads}");
        assert!(!self.envoy.log().contains("panicked"), "{}", self.envoy.log());
    }
}

#[test]
fn http_1_requests_are_decided_on_their_authority() {
    let mesh = Mesh::start();
    mesh.allows("GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n");
    mesh.denies("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n", "not_listed");

    // Absolute form: the URI's authority counts (RFC 9112, section 3.2.2).
    mesh.allows("GET http://listed.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n");
    mesh.denies("GET http://other.test/ HTTP/1.1\r\nHost: listed.test\r\n\r\n", "not_listed");
    // Envoy itself drops the user information of a URI, and sends on what is left.
    mesh.allows("GET http://u@listed.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n");
    mesh.denies("GET http://listed.test@other.test/ HTTP/1.1\r\nHost: listed.test\r\n\r\n", "not_listed");

    // Two Host headers come as one with a comma.
    mesh.denies("GET / HTTP/1.1\r\nHost: listed.test\r\nHost: other.test\r\n\r\n", "invalid_name");
    mesh.denies("GET / HTTP/1.1\r\nHost: listed.test\r\nHost: listed.test\r\n\r\n", "invalid_name");
    mesh.denies("GET / HTTP/1.1\r\nHost:\r\n\r\n", "invalid_name");
    mesh.denies("GET / HTTP/1.1\r\nHost: user@listed.test\r\n\r\n", "invalid_name");
    mesh.denies(format!("GET / HTTP/1.1\r\nHost: {}.test\r\n\r\n", "a".repeat(64)), "invalid_name");
    mesh.denies(format!("GET / HTTP/1.1\r\nHost: {}test\r\n\r\n", "a.".repeat(10_000)), "invalid_name");
    mesh.envoy_refuses("GET / HTTP/1.1\r\n\r\n", 400);
    mesh.envoy_refuses("GET / HTTP/1.1\r\nHost: listed.test/x\r\n\r\n", 400);
    mesh.envoy_refuses(b"GET / HTTP/1.1\r\nHost: listed\xff.test\r\n\r\n", 400);

    mesh.allows("GET / HTTP/1.0\r\nHost: listed.test\r\n\r\n");
    mesh.denies("GET / HTTP/1.0\r\nHost: other.test\r\n\r\n", "not_listed");
    mesh.envoy_refuses("GET / HTTP/1.0\r\n\r\n", 400);
    mesh.still_works();
}

#[test]
fn a_name_in_another_spelling_is_the_same_name() {
    let mesh = Mesh::start();
    for host in ["Listed.TEST", "listed.test.", "listed.test:80", "LISTED.test.:8080", "listed.test:"] {
        let response = mesh.exchange(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(response.status, 200, "{host}: {response:?}");
    }
    for host in ["listed.test..", "listed.test:0", "listed.test:x", "listed..test", "*.test", "[::1", "::1", "0x7f.1"] {
        mesh.denies(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), "invalid_name");
    }
}

#[test]
fn connect_is_decided_on_its_own_port() {
    let mesh = Mesh::start();
    // Allowed by the filter; Envoy has no route for it.
    mesh.envoy_refuses("CONNECT tunnel.test:8443 HTTP/1.1\r\nHost: tunnel.test:8443\r\n\r\n", 404);
    mesh.denies("CONNECT tunnel.test:22 HTTP/1.1\r\nHost: tunnel.test:22\r\n\r\n", "port_not_listed");
    mesh.denies("CONNECT other.test:443 HTTP/1.1\r\nHost: listed.test\r\n\r\n", "not_listed");
    // The port in a Host header is not the connection's.
    mesh.denies("GET / HTTP/1.1\r\nHost: tunnel.test:8443\r\n\r\n", "port_not_listed");
    mesh.still_works();
}

#[test]
fn upgrades_are_decided_like_other_requests() {
    let mesh = Mesh::start();
    let websocket = |host: &str| {
        format!(
            "GET /chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
    };
    let response = mesh.exchange(websocket("listed.test"));
    assert_eq!(response.status, 101, "{response:?}");
    mesh.denies(websocket("other.test"), "not_listed");

    let h2c = |host: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
             HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
        )
    };
    mesh.allows(h2c("listed.test"));
    mesh.denies(h2c("other.test"), "not_listed");
    mesh.still_works();
}

#[test]
fn nothing_of_a_denied_body_goes_out() {
    let mesh = Mesh::start();
    let body = "x".repeat(100_000);
    mesh.denies(format!("POST / HTTP/1.1\r\nHost: other.test\r\nContent-Length: 100000\r\n\r\n{body}"), "not_listed");
    mesh.denies(
        format!(
            "POST / HTTP/1.1\r\nHost: other.test\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n{body}\r\n0\r\n\r\n"
        ),
        "not_listed",
    );
    mesh.denies(
        "POST / HTTP/1.1\r\nHost: other.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        "not_listed",
    );
    assert_eq!(mesh.upstream.bytes(), 0);
    mesh.still_works();
}

#[test]
fn bytes_that_are_no_text_do_not_trap_the_vm() {
    let mesh = Mesh::start();
    mesh.allows(b"GET / HTTP/1.1\r\nHost: listed.test\r\nX-Odd: \xff\xfe\r\nContent-Type: \xc3\x28\r\n\r\n");
    mesh.denies(
        b"POST / HTTP/1.1\r\nHost: other.test\r\nContent-Type: application/grpc\xff\r\nContent-Length: 0\r\n\r\n",
        "not_listed",
    );
    let many: String = (0..90).map(|n| format!("X-Header-{n}: {n}\r\n")).collect();
    mesh.denies(format!("GET / HTTP/1.1\r\nHost: other.test\r\n{many}\r\n"), "not_listed");
    mesh.still_works();
}

#[test]
fn each_request_of_a_connection_is_decided_by_itself() {
    let mesh = Mesh::start();
    let mut stream = client::connect(mesh.port, DESTINATION);
    for (host, status) in
        [("listed.test", 200), ("other.test", 403), ("listed.test", 200), ("other.test", 403), ("listed.test", 200)]
    {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let response = client::read_response(&mut stream).unwrap();
        assert_eq!(response.status, status, "{host}: {response:?}");
    }
}

#[test]
fn http_2_requests_are_decided_on_their_authority() {
    let mesh = Mesh::start();
    let get = |uri: &str| http::Request::get(uri).body(()).unwrap();
    let allowed = h2_exchange(mesh.port, get("http://listed.test/"), b"");
    assert_eq!((allowed.status, allowed.text().as_str()), (200, "outside: listed.test\n"), "{allowed:?}");

    let before = mesh.upstream.connections();
    let denied = h2_exchange(mesh.port, get("http://other.test/"), b"");
    assert_eq!((denied.status, denied.header("x-egress-denied")), (403, Some("not_listed")), "{denied:?}");

    let mut with_host = get("http://other.test/");
    with_host.headers_mut().insert("host", "listed.test".parse().unwrap());
    let denied = h2_exchange(mesh.port, with_host, b"");
    assert_eq!((denied.status, denied.header("x-egress-denied")), (403, Some("not_listed")), "{denied:?}");

    let posted = http::Request::post("http://other.test/").body(()).unwrap();
    let denied = h2_exchange(mesh.port, posted, &[b'x'; 1000]);
    assert_eq!((denied.status, denied.header("x-egress-denied")), (403, Some("not_listed")), "{denied:?}");
    assert_eq!(mesh.upstream.connections(), before);
    mesh.still_works();
}

#[test]
fn grpc_is_denied_in_its_own_way() {
    let mesh = Mesh::start();
    for (content_type, is_grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
        ("application/grpcx", false),
        ("application/json", false),
    ] {
        let request = http::Request::post("http://other.test/shop.Cart/Add").header("content-type", content_type);
        let response = h2_exchange(mesh.port, request.body(()).unwrap(), b"\0\0\0\0\0");
        assert_eq!(response.header("x-egress-denied"), Some("not_listed"), "{content_type}: {response:?}");
        if is_grpc {
            assert_eq!((response.status, response.header("grpc-status")), (200, Some("7")), "{content_type}");
            let message = "egress denied: other.test:80: no registry entry lists it (not_listed)";
            assert_eq!(response.header("grpc-message"), Some(message), "{content_type}");
            assert_eq!(response.text(), "", "{content_type}");
        } else {
            assert_eq!((response.status, response.header("grpc-status")), (403, None), "{content_type}");
        }
    }
    let counted = |protocol: &str| {
        mesh.envoy.metric(&format!(
            "egress_requests_total{{egress_host=\"other.test\",egress_protocol=\"{protocol}\",\
             egress_reason=\"not_listed\",egress_verdict=\"denied\"}}"
        ))
    };
    assert_eq!((counted("grpc"), counted("http")), (2, 3));
}

#[test]
fn http_2_without_authority_never_passes() {
    let mesh = Mesh::start();
    let mut stream = client::connect(mesh.port, DESTINATION);
    // Preface, SETTINGS, then HEADERS with :method GET, :scheme http, :path / and nothing else (RFC 9113, RFC 7541).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(&[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84]).unwrap();
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    // RST_STREAM (type 3) or HEADERS (type 1) on stream 1, or the end of the connection.
    let frame = loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break None,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
        if let Some(frame) = frames(&answer).into_iter().find(|(kind, id)| *id == 1 && matches!(kind, 1 | 3)) {
            break Some(frame);
        }
    };
    assert_eq!(mesh.upstream.connections(), 0, "{frame:?}");
    mesh.still_works();
}

/// Type and stream of each whole frame.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, s, t, u, v, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        frames.push((*kind, u32::from_be_bytes([*s, *t, *u, *v])));
        bytes = rest.get(length..).unwrap_or_default();
    }
    frames
}

/// One request over HTTP/2 with prior knowledge.
fn h2_exchange(port: u16, request: http::Request<()>, body: &[u8]) -> Response {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exchange = async {
        let stream = client::connect(port, DESTINATION);
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let (response, mut sender) = client.send_request(request, body.is_empty()).unwrap();
        if !body.is_empty() {
            // Envoy may have answered and reset the stream by now.
            let _ = sender.send_data(body.to_vec().into(), true);
        }
        let response = response.await.unwrap();
        let status = response.status().as_u16();
        let headers =
            response.headers().iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let headers = headers.collect();
        let mut stream = response.into_body();
        let mut body = Vec::new();
        while let Some(Ok(data)) = stream.data().await {
            let _ = stream.flow_control().release_capacity(data.len());
            body.extend_from_slice(&data);
        }
        driver.abort();
        Response { status, headers, body }
    };
    runtime.block_on(async { tokio::time::timeout(support::envoy::PATIENCE, exchange).await }).expect("no answer")
}
