//! How connections begin, wait and end: in real Envoy, each is decided as it should be, what is let through arrives byte
//! for byte, and nothing is left of what has ended.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use support::client::read_up_to;
use support::connections::{DESTINATION, Mesh, Setup};
use support::echo::Echo;
use support::envoy::{Envoy, PATIENCE, new_folder};
use support::hello::{client_hello, record};
use support::sidecar::{self, CATCH_ALL, ConnectMode, MeshMode, TcpListener};

const ADDRESS: &str = "203.0.113.10:443";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// `listed.test` by name, and no address.
fn listed() -> Value {
    json!({"registry": [{"hosts": ["listed.test"]}]})
}

fn by_address() -> Value {
    json!({"registry": [{"name": "db", "addresses": ["203.0.113.0/24"], "ports": [{"number": 443, "protocol": "TCP"}]}]})
}

fn impatient(mut config: Value) -> Value {
    config["tcp"] = json!({"inspectionTimeout": "200ms"});
    config
}

fn start(config: Value) -> Mesh {
    Setup { config, ..Setup::default() }.start()
}

/// What comes until the connection ends; a reset is an end.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    read_up_to(stream, usize::MAX >> 1)
}

/// What is sent comes back.
#[track_caller]
fn echoes(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    assert_eq!(read_up_to(stream, bytes.len()), bytes);
}

// === The server speaks first ===

#[test]
fn a_server_that_speaks_first_is_heard_where_its_address_is_listed() {
    let mesh = Setup { config: by_address(), banner: b"5.7 mysql", ..Setup::default() }.start();
    let mut client = mesh.connect();
    assert_eq!(read_up_to(&mut client, 9), b"5.7 mysql");
    echoes(&mut client, b"login");
    mesh.wait_for(1, "203.0.113.0/24 tcp allowed listed");
    assert_eq!(mesh.traffic("egress_connections_active", "203.0.113.0/24", "tcp"), 1);
    drop(client);
    mesh.is_empty();
    assert_eq!(mesh.traffic("egress_sent_bytes_total", "203.0.113.0/24", "tcp"), 5);
    assert_eq!(mesh.traffic("egress_received_bytes_total", "203.0.113.0/24", "tcp"), 14);
}

#[test]
fn a_server_that_speaks_first_is_not_heard_where_it_is_not_listed() {
    let mesh = Setup { config: listed(), banner: b"5.7 mysql", ..Setup::default() }.start();
    let mut client = mesh.connect();
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, &format!("{ADDRESS} tcp denied server_first"));
    // A client that has begun to say something is no better off: none of it has arrived.
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("listed.test"))[..20]);
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(2, &format!("{ADDRESS} tcp denied server_first"));
    mesh.is_empty();
    assert_eq!(mesh.outside.bytes(), 0);
}

#[test]
fn a_server_inside_the_mesh_may_speak_first() {
    let setup = Setup {
        config: listed(),
        chain: "",
        cluster: "outbound|9080||reviews.default.svc.cluster.local",
        banner: b"hello",
        ..Setup::default()
    };
    let mesh = setup.start();
    let mut client = mesh.connect();
    assert_eq!(read_up_to(&mut client, 5), b"hello");
    echoes(&mut client, b"\0\0 anything");
    mesh.wait_for(1, "mesh tcp allowed mesh_internal");
    drop(client);
    mesh.is_empty();
}

#[test]
fn under_report_a_server_that_speaks_first_is_heard() {
    let mut config = listed();
    config["enforcement"] = json!("REPORT");
    let mesh = Setup { config, banner: b"hello", ..Setup::default() }.start();
    let mut client = mesh.connect();
    assert_eq!(read_up_to(&mut client, 5), b"hello");
    echoes(&mut client, b"login");
    mesh.wait_for(1, &format!("{ADDRESS} tcp would_deny server_first"));
}

// === The client is slow, or silent ===

#[test]
fn a_client_that_dribbles_is_decided_when_it_has_said_enough() {
    let hello = client_hello(Some("listed.test"));
    let fragmented: Vec<u8> = hello[5..].chunks(1).flat_map(record).collect();
    let preface = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    let head = b"GET / HTTP/1.1\r\nAccept: */*\r\nHost: listed.test\r\n\r\nbody".to_vec();
    for mode in ConnectMode::basic() {
        let config = json!({"registry": [
            {"hosts": ["listed.test"]},
            {"addresses": ["203.0.113.10"], "ports": [{"number": 443, "protocol": "HTTP"}]},
        ]});
        let mesh = Setup { config, mode, ..Setup::default() }.start();
        for bytes in [&hello, &fragmented, &preface, &head] {
            let mut client = mesh.connect();
            for byte in bytes.chunks(1) {
                client.write_all(byte).unwrap();
            }
            assert_eq!(&read_up_to(&mut client, bytes.len()), bytes);
            echoes(&mut client, b"and what follows");
        }
        mesh.wait_for(2, "listed.test tls allowed listed");
        mesh.wait_for(1, "listed.test http allowed listed");
        mesh.wait_for(1, "203.0.113.10 http allowed listed");
        mesh.is_empty();
    }
}

#[test]
fn a_silent_client_is_decided_when_time_is_up() {
    let mesh = start(impatient(listed()));
    let mut silent = mesh.connect();
    let mut halting = mesh.connect();
    halting.write_all(b"GET / HTTP").unwrap();
    let mut slow = mesh.connect();
    slow.write_all(&client_hello(Some("listed.test"))[..20]).unwrap();
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut halting), b"");
    assert_eq!(read_to_end(&mut slow), b"");
    mesh.wait_for(2, &format!("{ADDRESS} tcp denied no_client_data"));
    mesh.wait_for(1, &format!("{ADDRESS} tls denied no_client_data"));
    mesh.is_empty();
    assert_eq!(mesh.outside.bytes(), 0);
}

#[test]
fn a_silent_client_may_go_on_where_the_route_is_inside_the_mesh() {
    let config = impatient(listed());
    let cluster = "outbound|9080||reviews.default.svc.cluster.local";
    let mesh = Setup { config, chain: "", cluster, ..Setup::default() }.start();
    let mut silent = mesh.connect();
    let mut halting = mesh.connect();
    halting.write_all(b"hel").unwrap();
    mesh.wait_for(2, "mesh tcp allowed mesh_internal");
    // What was kept is let through.
    assert_eq!(read_up_to(&mut halting, 3), b"hel");
    echoes(&mut halting, b"lo");
    echoes(&mut silent, b"after all");
    drop((silent, halting));
    mesh.is_empty();
    assert_eq!(mesh.traffic("egress_sent_bytes_total", "mesh", "tcp"), 14);
    assert_eq!(mesh.traffic("egress_received_bytes_total", "mesh", "tcp"), 14);
}

#[test]
fn without_an_upstream_a_silent_client_is_decided_when_time_is_up() {
    let Some(mode) = ConnectMode::lazy() else {
        return;
    };
    let mesh = Setup { config: impatient(listed()), mode, ..Setup::default() }.start();
    let mut silent = mesh.connect();
    assert_eq!(read_to_end(&mut silent), b"");
    mesh.wait_for(1, &format!("{ADDRESS} tcp denied no_client_data"));
    mesh.is_empty();
    assert_eq!(mesh.outside.connections(), 0);
}

/// In immediate mode Envoy does not read before it has connected: a client that has spoken long ago looks silent.
#[test]
fn time_does_not_run_while_envoy_connects() {
    // A listener that accepts nothing completes as many handshakes as its queue takes; Envoy's is one too many.
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        queue.push(stream);
    }
    let mesh = Setup { config: impatient(listed()), ..Setup::default() }.start_with(Echo::start(b""), address);
    let mut client = mesh.connect();
    let hello = client_hello(Some("listed.test"));
    client.write_all(&hello).unwrap();
    let connecting = || mesh.envoy.admin("/stats?filter=PassthroughCluster.upstream_cx_active").contains(": 1");
    mesh.envoy.wait("Envoy to connect", || connecting().then_some(()));
    // Longer than time would be up; nothing can be waited for, since nothing may happen.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(mesh.envoy.metrics("egress_connections_total"), []);
    for _ in 0..queue.len() {
        drop(busy.accept().unwrap());
    }
    let (mut upstream, _) = busy.accept().unwrap();
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read_up_to(&mut upstream, hello.len()), hello);
    mesh.wait_for(1, "listed.test tls allowed listed");
}

// === One side ends ===

#[test]
fn a_client_that_ends_is_decided_by_what_it_has_said() {
    let hello = client_hello(Some("listed.test"));
    let cases: [(&[u8], &str); 6] = [
        (b"", "tcp denied no_client_data"),
        (&hello[..hello.len() - 1], "tls denied invalid_client_hello"),
        (b"GET / HTTP/1.1\r\nHost: listed.test\r\n", "http denied invalid_name"),
        (b"GET / HT", "tcp denied not_listed"),
        (b"\0", "tcp denied not_listed"),
        (&PREFACE[..20], "tcp denied not_listed"),
    ];
    for mode in ConnectMode::basic() {
        let mesh = Setup { config: listed(), mode, ..Setup::default() }.start();
        let mut counts = std::collections::BTreeMap::new();
        for (bytes, expected) in cases {
            let mut client = mesh.connect_through();
            client.write_all(bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), b"");
            let host = if expected.contains("invalid_name") { "invalid" } else { ADDRESS };
            let what = format!("{host} {expected}");
            let count = counts.entry(what.clone()).or_default();
            *count += 1;
            mesh.wait_for(*count, &what);
        }
        mesh.is_empty();
        assert_eq!(mesh.outside.bytes(), 0);
    }
}

#[test]
fn a_client_that_says_all_and_ends_is_answered() {
    for mode in ConnectMode::basic() {
        for bytes in [client_hello(Some("listed.test")), b"GET / HTTP/1.0\r\nHost: listed.test\r\n\r\n".to_vec()] {
            let mesh = Setup { config: listed(), mode, ..Setup::default() }.start();
            let mut client = mesh.connect_through();
            client.write_all(&bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), bytes, "{mode:?}");
            mesh.is_empty();
        }
    }
}

#[test]
fn a_client_that_ends_without_a_word_leaves_nothing() {
    for mode in ConnectMode::basic() {
        // Allowed at once by its address, and yet there is nothing to let through.
        for config in [listed(), by_address()] {
            let mesh = Setup { config, mode, ..Setup::default() }.start();
            let mut client = mesh.connect_through();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&mut client), b"", "{mode:?}");
            drop(client);
            mesh.is_empty();
        }
    }
}

#[test]
fn a_client_that_goes_away_undecided_is_counted_so() {
    let inside = "outbound|9080||reviews.default.svc.cluster.local";
    let mesh = Setup { config: listed(), chain: "", cluster: inside, ..Setup::default() }.start();
    let client = mesh.connect();
    mesh.envoy.wait("Envoy to hold it", || (mesh.outside.open() == 1).then_some(()));
    reset(client);
    mesh.wait_for(1, "mesh tcp undecided closed_early");

    let mesh = start(listed());
    let mut client = mesh.connect();
    client.write_all(&client_hello(Some("listed.test"))[..20]).unwrap();
    mesh.envoy.wait("Envoy to hold it", || (mesh.outside.open() == 1).then_some(()));
    // With bytes unread or lingering off it would be a FIN.
    reset(client);
    mesh.wait_for(1, &format!("{ADDRESS} tcp undecided closed_early"));
    mesh.is_empty();
    assert_eq!(mesh.outside.bytes(), 0);
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_server_that_refuses_or_hangs_up_decides_nothing() {
    // Nothing listens there any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mesh = Setup { config: listed(), ..Setup::default() }.start_with(Echo::start(b""), gone);
    let mut client = mesh.connect();
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, &format!("{ADDRESS} tcp undecided closed_early"));
    mesh.is_empty();

    let short = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = short.local_addr().unwrap();
    let mesh = Setup { config: listed(), ..Setup::default() }.start_with(Echo::start(b""), address);
    let mut client = mesh.connect();
    drop(short.accept().unwrap());
    assert_eq!(read_to_end(&mut client), b"");
    // The client might still speak; it does not.
    drop(client);
    mesh.wait_for(1, &format!("{ADDRESS} tcp denied no_client_data"));
    mesh.is_empty();
}

// === The mesh has no way out ===

#[test]
fn what_the_mesh_itself_closes_is_counted_by_address() {
    let mesh = Setup { config: listed(), cluster: "BlackHoleCluster", ..Setup::default() }.start();
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("other.test")));
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, &format!("{ADDRESS} tcp denied mesh_denied"));
    mesh.is_empty();
    let line = mesh.access_log_line();
    assert_eq!([&line["verdict"], &line["reason"], &line["host"]], ["denied", "mesh_denied", ADDRESS]);
    mesh.wait_for_log("denied [203.0.113.10:443] the mesh has no way out for it (mesh_denied)");
}

#[test]
fn without_an_upstream_even_the_mesh_s_own_denials_are_named() {
    let Some(mode) = ConnectMode::lazy() else {
        return;
    };
    let mesh = Setup { config: listed(), cluster: "BlackHoleCluster", mode, ..Setup::default() }.start();
    let mut client = mesh.connect();
    client.write_all(&client_hello(Some("other.test"))).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "other.test tls denied not_listed");
    mesh.is_empty();
}

// === No SYN ===

#[test]
fn what_its_address_denies_makes_no_connection() {
    let config = json!({"registry": [{"hosts": ["*.test"]}], "deny": [{"addresses": ["203.0.113.10"]}]});
    let mesh = start(config);
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("listed.test")));
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "203.0.113.10 tcp denied deny_listed");
    mesh.is_empty();
    assert_eq!(mesh.outside.connections(), 0);
    let line = mesh.access_log_line();
    assert_eq!([&line["verdict"], &line["reason"], &line["host"]], ["denied", "deny_listed", "203.0.113.10"]);
}

#[test]
fn behind_a_tls_inspector_what_its_name_denies_makes_no_connection() {
    let mesh = Setup { config: listed(), mode: ConnectMode::TlsInspector, ..Setup::default() }.start();
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("Other.test")));
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "other.test tls denied not_listed");
    assert_eq!(mesh.outside.connections(), 0);
    let mut client = mesh.connect();
    echoes(&mut client, &client_hello(Some("listed.test")));
    mesh.wait_for(1, "listed.test tls allowed listed");
    drop(client);
    mesh.is_empty();
}

// === Routes ===

#[test]
fn where_a_name_chose_the_route_a_listed_address_permits_nothing() {
    let config = json!({"registry": [
        {"addresses": ["203.0.113.0/24"]},
        {"hosts": ["listed.test"]},
    ]});
    let routed = |mode, config: &Value| {
        let cluster = "outbound|80||registered.test";
        Setup { config: config.clone(), chain: "", cluster, mode, ..Setup::default() }.start()
    };
    let mesh = routed(ConnectMode::TlsInspector, &config);
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("registered.test")));
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "registered.test tls denied not_listed");
    echoes(&mut mesh.connect(), &client_hello(Some("listed.test")));
    mesh.wait_for(1, "listed.test tls allowed listed");
    mesh.is_empty();

    // Without a tls_inspector the name chose nothing.
    let mesh = routed(ConnectMode::Immediate, &config);
    echoes(&mut mesh.connect(), &client_hello(Some("registered.test")));
    mesh.wait_for(1, "203.0.113.0/24 tcp allowed listed");

    // A route that Envoy does not name is no route into the mesh.
    if let Some(mode) = ConnectMode::lazy() {
        let mesh = routed(mode, &json!({"mesh": {"trustRegistry": true}}));
        assert!(!passes(&mesh, ADDRESS, &client_hello(Some("registered.test"))));
        mesh.wait_for_log("Envoy names no upstream for a connection");
    }

    let trusting = json!({"mesh": {"trustRegistry": true}});
    let mesh = routed(ConnectMode::TlsInspector, &trusting);
    echoes(&mut mesh.connect(), &client_hello(Some("registered.test")));
    mesh.wait_for(1, "registered.test tls allowed mesh_registry");
}

#[test]
fn an_egress_gateway_leads_outside() {
    let config = json!({
        "registry": [{"hosts": ["listed.test"]}],
        "mesh": {
            "addresses": ["203.0.113.0/24"],
            "egressGateways": ["istio-egressgateway.istio-system.svc.cluster.local"],
        },
    });
    let cluster = "outbound|80||istio-egressgateway.istio-system.svc.cluster.local";
    let mesh = Setup { config, chain: "", cluster, ..Setup::default() }.start();
    let mut client = mesh.connect();
    let _ = client.write_all(&client_hello(Some("other.test")));
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "other.test tls denied not_listed");
    echoes(&mut mesh.connect(), &client_hello(Some("listed.test")));
    mesh.wait_for(1, "listed.test tls allowed listed");
}

/// Sends bytes to a port; true if they came back, so that they had been out.
fn passes(mesh: &Mesh, destination: &str, bytes: &[u8]) -> bool {
    let mut client = support::client::connect(mesh.port, destination.parse().unwrap());
    let before = mesh.outside.bytes();
    // It may be closed by now.
    let _ = client.write_all(bytes);
    let came_back = read_up_to(&mut client, bytes.len()) == bytes;
    assert!(came_back || mesh.outside.bytes() == before, "a part of {} got out", bytes.escape_ascii());
    came_back
}

#[test]
fn connect_counts_by_its_own_authority() {
    let config = json!({"registry": [{"hosts": ["tunnel.test"], "ports": [{"number": 8443}]}]});
    let mesh = start(config);
    assert!(passes(&mesh, ADDRESS, b"CONNECT tunnel.test:8443 HTTP/1.1\r\nHost: tunnel.test:8443\r\n\r\n"));
    mesh.wait_for(1, "tunnel.test http allowed listed");
    for (request, expected) in [
        ("CONNECT tunnel.test:22 HTTP/1.1\r\n\r\n", "tunnel.test http denied port_not_listed"),
        ("CONNECT tunnel.test:8443 HTTP/1.1\r\nHost: other.test\r\n\r\n", "invalid http denied invalid_name"),
        ("GET http://other.test/ HTTP/1.1\r\n\r\n", "other.test http denied not_listed"),
    ] {
        assert!(!passes(&mesh, ADDRESS, request.as_bytes()));
        mesh.wait_for(1, expected);
    }
}

/// The port that CONNECT asks for says nothing about the port that the client connected to.
#[test]
fn connect_opens_no_other_port_of_an_address() {
    let connect = b"CONNECT x.test:8080 HTTP/1.1\r\n\r\n";
    let http = json!({"number": 8080, "protocol": "HTTP"});
    let tcp = json!({"number": 8080, "protocol": "TCP"});
    for registry in [
        json!([{"addresses": ["203.0.113.10"], "ports": [http]}]),
        json!([{"addresses": ["203.0.113.10"], "ports": [tcp]}]),
        json!([{"hosts": ["db.test"], "ports": [tcp]}]),
    ] {
        let mesh = start(json!({"registry": registry}));
        assert!(!passes(&mesh, "203.0.113.10:22", connect), "{registry}");
        assert!(passes(&mesh, "203.0.113.10:8080", connect), "{registry}");
    }
    let verified = json!([{"hosts": ["x.test"], "addresses": ["203.0.113.10"], "ports": [http]}]);
    let mesh = start(json!({"registry": verified, "spoofProtection": true}));
    assert!(!passes(&mesh, "203.0.113.10:22", connect));
    assert!(passes(&mesh, "203.0.113.10:8080", connect));
    let denied = json!([{"addresses": ["203.0.113.10"], "ports": [{"number": 443, "protocol": "HTTP"}]}]);
    let mesh = start(json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "deny": denied}));
    assert!(!passes(&mesh, "203.0.113.10:443", connect));
    assert!(passes(&mesh, "203.0.113.10:444", connect));
}

// === The deny list ===

/// Everything is allowed but `evil.test`; by the mode, or because the address is listed.
fn all_but_evil() -> [Value; 2] {
    [
        json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}, "deny": [{"hosts": ["evil.test"]}]}),
        json!({"registry": [{"addresses": ["203.0.113.0/24"]}], "deny": [{"hosts": ["evil.test"]}]}),
    ]
}

#[test]
fn a_denied_name_is_not_reached_by_an_odd_spelling_of_the_protocol() {
    let hello = client_hello(Some("evil.test"));
    let twice = {
        let mut twice = hello.clone();
        // An unknown extension, twice, behind the name: lengths of record, message and extensions grow by eight.
        twice.extend([0xfe, 0x42, 0, 0, 0xfe, 0x42, 0, 0]);
        for position in [4, 8, 50] {
            twice[position] += 8;
        }
        twice
    };
    for config in all_but_evil() {
        let mesh = start(config.clone());
        for bytes in [
            &hello[..],
            &twice,
            &[&[22, 3, 1, 0, 0][..], &hello].concat(),
            &[&[22, 2][..], &hello[2..]].concat(),
            b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: evil.test:0\r\n\r\n",
            b"GET http://x.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b"GET http://evil.test/ HTTP/1.1\r\nHost: x.test\r\n\r\n",
            b"GET\t/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b"GET /\x01 HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b"\r\nGET / HTTP/1.10\r\nHost: evil.test\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: y\nHost: x.test\n\n\r\nHost: evil.test\r\n\r\n",
            b"GET http://evil.test/\r\n",
            b"A-METHOD-THAT-IS-LONGER-THAN-ANY-KNOWN / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n",
        ] {
            assert!(!passes(&mesh, ADDRESS, bytes), "{config}: {}", bytes.escape_ascii());
        }
        // What names nobody, or another, passes.
        for bytes in [
            &client_hello(Some("fine.test"))[..],
            &client_hello(None),
            // An IP address is no spelling of a name.
            &client_hello(Some("203.0.113.10")),
            b"GET / HTTP/1.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: fine.test\r\n\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
        ] {
            assert!(passes(&mesh, ADDRESS, bytes), "{config}: {}", bytes.escape_ascii());
        }
        mesh.is_empty();
    }
}

/// A client that waits until it was let through is still heard.
#[test]
fn a_denied_name_is_not_reached_by_being_slow() {
    let hello = client_hello(Some("evil.test"));
    for config in all_but_evil() {
        let mesh = start(impatient(config));
        for said_before in [0, 20] {
            for (name, is_denied) in [("evil.test", true), ("fine.test", false)] {
                let hello = client_hello(Some(name));
                let mut client = mesh.connect();
                client.write_all(&hello[..said_before]).unwrap();
                // What was kept arrives when time is up; of nothing, the metric tells.
                assert_eq!(read_up_to(&mut client, said_before), hello[..said_before]);
                mesh.envoy.wait("it to be let through", || {
                    let active = mesh.envoy.metrics("egress_connections_active");
                    active.iter().any(|(_, count)| *count == 1).then_some(())
                });
                let before = mesh.outside.bytes();
                let _ = client.write_all(&hello[said_before..]);
                let rest = read_up_to(&mut client, hello.len() - said_before);
                if is_denied {
                    assert_eq!((rest.as_slice(), mesh.outside.bytes()), (&b""[..], before));
                } else {
                    assert_eq!(rest, hello[said_before..]);
                    echoes(&mut client, b"and so on");
                }
                drop(client);
                mesh.is_empty();
            }
        }
        mesh.wait_for(2, "evil.test tls denied deny_listed");
    }
    // The server speaks first, and then the client asks for what is denied.
    let [allow_any, _] = all_but_evil();
    let mesh = Setup { config: allow_any, banner: b"hello", ..Setup::default() }.start();
    let mut client = mesh.connect();
    assert_eq!(read_up_to(&mut client, 5), b"hello");
    let _ = client.write_all(&hello);
    assert_eq!(read_to_end(&mut client), b"");
    mesh.wait_for(1, "evil.test tls denied deny_listed");
    mesh.is_empty();
    assert_eq!(mesh.outside.bytes(), 0);
}

#[test]
fn under_report_what_is_denied_late_is_told_and_passes() {
    let mut config = impatient(json!({"deny": [{"hosts": ["evil.test"]}]}));
    config["outboundTrafficPolicy"] = json!({"mode": "ALLOW_ANY"});
    config["enforcement"] = json!("REPORT");
    let mesh = start(config);
    let mut client = mesh.connect();
    mesh.wait_for(1, &format!("{ADDRESS} tcp allowed allow_any"));
    echoes(&mut client, &client_hello(Some("evil.test")));
    mesh.wait_for(1, "evil.test tls would_deny deny_listed");
    drop(client);
    mesh.is_empty();
}

#[test]
fn a_denied_address_is_not_reached_through_a_listed_proxy() {
    let mesh =
        start(json!({"registry": [{"addresses": ["203.0.113.10"]}], "deny": [{"addresses": ["169.254.169.254"]}]}));
    assert!(!passes(&mesh, ADDRESS, b"CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n"));
    assert!(!passes(&mesh, ADDRESS, b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n"));
    assert!(passes(&mesh, ADDRESS, b"CONNECT x.test:80 HTTP/1.1\r\n\r\n"));
    mesh.wait_for(2, "169.254.169.254 http denied deny_listed");
    mesh.is_empty();
}

// === Mistakes ===

#[test]
fn a_plugin_in_the_wrong_place_fails_closed_and_says_so() {
    let folder = new_folder();
    let http_as_network = {
        let mut filter = sidecar::tcp_filter("{}");
        filter["typed_config"]["config"]["root_id"] = json!("egress-http");
        filter
    };
    let tcp_as_http = {
        let mut filter = sidecar::http_filter("{}");
        filter["typed_config"]["config"]["root_id"] = json!("egress-tcp");
        filter
    };
    let listeners = [
        TcpListener {
            name: "tcp",
            chain: CATCH_ALL,
            cluster: "PassthroughCluster",
            mode: ConnectMode::Immediate,
            filters: vec![http_as_network],
            access_log: &folder.join("access.log"),
        }
        .build(),
        sidecar::http_listener("http", MeshMode::AllowAny, &[tcp_as_http], &folder.join("access.log")),
        {
            // Before the connection manager, where Istio puts a WasmPlugin of type NETWORK on HTTP ports, too.
            let mut listener = sidecar::http_listener("before", MeshMode::AllowAny, &[], &folder.join("access.log"));
            let filters = listener["filter_chains"][0]["filters"].as_array_mut().unwrap();
            filters.insert(0, sidecar::tcp_filter("{}"));
            listener
        },
    ];
    let outside = Echo::start(b"");
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &listeners, outside.address));

    let mut client = support::client::connect(envoy.port("tcp"), DESTINATION);
    let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n");
    assert_eq!(read_to_end(&mut client), b"");
    let request = b"GET / HTTP/1.1\r\nHost: listed.test\r\n\r\n";
    let response = support::client::exchange(envoy.port("http"), DESTINATION, request);
    let line = "egress-tcp is attached to HTTP: use egress-http there, or attach it as a network filter";
    assert_eq!((response.status, response.text()), (500, format!("egress filter: {line}\n")));
    let mut client = support::client::connect(envoy.port("before"), DESTINATION);
    client.write_all(b"GET / HTTP/1.1\r\nHost: reviews.default.svc.cluster.local\r\n\r\n").unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    let lines = [
        line,
        "egress-http is attached as a network filter: use egress-tcp there, or attach it to HTTP",
        "egress-tcp must stand directly before tcp_proxy",
    ];
    envoy.wait("all mistakes in the log", || lines.iter().all(|line| envoy.log().contains(line)).then_some(()));
    assert_eq!(outside.connections(), 0);
}

/// What the tests leave out on an older Envoy, it does not have.
#[test]
fn envoy_has_on_downstream_data_from_1_37_on() {
    let folder = new_folder();
    let listener = TcpListener {
        name: "tcp",
        chain: CATCH_ALL,
        cluster: "PassthroughCluster",
        mode: ConnectMode::OnDownstreamData,
        filters: vec![],
        access_log: &folder.join("access.log"),
    };
    let bootstrap = sidecar::bootstrap(&json!({}), &[listener.build()], DESTINATION);
    assert_eq!(Envoy::accepts(&folder, &bootstrap), ConnectMode::lazy().is_some());
}

// === Many, and much ===

#[test]
fn a_thousand_connections_held_at_once_are_all_decided() {
    let mut config = listed();
    // However slow the machine is.
    config["tcp"] = json!({"inspectionTimeout": "10m"});
    let mesh = start(config);
    let hellos = [client_hello(Some("listed.test")), client_hello(Some("other.test"))];
    let mut clients: Vec<TcpStream> = Vec::new();
    for hello in hellos.iter().cycle().take(1_000) {
        let mut client = mesh.connect();
        client.write_all(&hello[..hello.len() - 1]).unwrap();
        clients.push(client);
        // The outside world's queue for new connections is not what is tested.
        if clients.len().is_multiple_of(100) {
            mesh.envoy.wait("all connections", || (mesh.outside.open() == clients.len() as u64).then_some(()));
        }
    }
    assert_eq!(mesh.outside.bytes(), 0);
    for (client, hello) in clients.iter_mut().zip(hellos.iter().cycle()) {
        client.write_all(&hello[hello.len() - 1..]).unwrap();
    }
    for (number, (client, hello)) in clients.iter_mut().zip(hellos.iter().cycle()).enumerate() {
        let expected: &[u8] = if number % 2 == 0 { hello } else { b"" };
        assert_eq!(read_up_to(client, hello.len()), expected, "{number}");
    }
    mesh.wait_for(500, "listed.test tls allowed listed");
    mesh.wait_for(500, "other.test tls denied not_listed");
    assert_eq!(mesh.traffic("egress_connections_active", "listed.test", "tls"), 500);
    drop(clients);
    mesh.is_empty();
}

/// The most that all held connections together are inspected by is bounded; what does not fit is decided at once.
#[test]
fn clients_that_never_end_their_hello_take_a_bounded_memory() {
    let mesh = start(listed());
    // A hello of nearly 64 KiB that lacks its last byte.
    let hello = {
        let body = vec![7; 60_000];
        let length = u32::try_from(body.len() + 1).unwrap().to_be_bytes();
        let message = [&[1, length[1], length[2], length[3]][..], &body].concat();
        message.chunks(16_000).flat_map(record).collect::<Vec<u8>>()
    };
    let clients: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut client = mesh.connect();
            // Those that are too many are closed while they write.
            let _ = client.write_all(&hello);
            client
        })
        .collect();
    let denied = format!("{ADDRESS} tls denied invalid_client_hello");
    mesh.envoy.wait("some to be denied", || (mesh.decided(&denied) >= 100).then_some(()));
    mesh.wait_for_log("too many clients have begun and not ended a TLS ClientHello or HTTP head");
    drop(clients);
    mesh.is_empty();
    // And there is room again.
    let mut client = mesh.connect();
    echoes(&mut client, &client_hello(Some("listed.test")));
}

#[test]
fn a_gibibyte_in_each_direction_arrives_intact() {
    const SIZE: u64 = 1 << 30;
    let mesh = start(listed());
    let mut client = mesh.connect();
    let mut reader = client.try_clone().unwrap();
    let hello = client_hello(Some("listed.test"));
    let writer = std::thread::spawn(move || {
        let mut hash = xxhash_rust::xxh64::Xxh64::new(0);
        client.write_all(&hello).unwrap();
        hash.update(&hello);
        let mut left = usize::try_from(SIZE).unwrap() - hello.len();
        let mut block: Vec<u8> = (0..1 << 20).map(|n: u32| (n ^ (n >> 7)) as u8).collect();
        while left > 0 {
            let piece = &block[..block.len().min(left)];
            client.write_all(piece).unwrap();
            hash.update(piece);
            left -= piece.len();
            block.rotate_left(1);
        }
        (client, hash.digest())
    });
    let mut hash = xxhash_rust::xxh64::Xxh64::new(0);
    let mut buffer = vec![0; 1 << 20];
    let mut read = 0;
    while read < SIZE {
        let count = reader.read(&mut buffer).unwrap();
        assert!(count > 0, "it ended after {read} bytes");
        hash.update(&buffer[..count]);
        read += count as u64;
    }
    let (client, sent) = writer.join().unwrap();
    assert_eq!(hash.digest(), sent);
    drop((client, reader));
    mesh.is_empty();
    assert_eq!(mesh.traffic("egress_sent_bytes_total", "listed.test", "tls"), SIZE);
    assert_eq!(mesh.traffic("egress_received_bytes_total", "listed.test", "tls"), SIZE);
}
