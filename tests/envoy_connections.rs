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
    assert_eq!(read_to_end(&mut silent), b"");
    assert_eq!(read_to_end(&mut halting), b"");
    mesh.wait_for(2, &format!("{ADDRESS} tcp denied no_client_data"));
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

#[test]
fn connect_counts_by_its_own_authority() {
    let config = json!({"registry": [{"hosts": ["tunnel.test"], "ports": [{"number": 8443}]}]});
    let mesh = start(config);
    echoes(&mut mesh.connect(), b"CONNECT tunnel.test:8443 HTTP/1.1\r\nHost: other.test\r\n\r\n");
    mesh.wait_for(1, "tunnel.test http allowed listed");
    for (request, expected) in [
        ("CONNECT tunnel.test:22 HTTP/1.1\r\n\r\n", "tunnel.test http denied port_not_listed"),
        ("GET http://other.test/ HTTP/1.1\r\nHost: tunnel.test\r\n\r\n", "other.test http denied not_listed"),
    ] {
        let mut client = mesh.connect();
        client.write_all(request.as_bytes()).unwrap();
        assert_eq!(read_to_end(&mut client), b"");
        mesh.wait_for(1, expected);
    }
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
    let lines = [line, "egress-http is attached as a network filter: use egress-tcp there, or attach it to HTTP"];
    envoy.wait("both mistakes in the log", || lines.iter().all(|line| envoy.log().contains(line)).then_some(()));
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
    let mut clients: Vec<TcpStream> = (0..1_000).map(|_| mesh.connect()).collect();
    for (client, hello) in clients.iter_mut().zip(hellos.iter().cycle()) {
        client.write_all(&hello[..hello.len() - 1]).unwrap();
    }
    mesh.envoy.wait("all connections", || (mesh.outside.open() == 1_000).then_some(()));
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
    let denied = format!("{ADDRESS} tcp denied no_client_data");
    mesh.envoy.wait("some to be denied", || (mesh.decided(&denied) >= 100).then_some(()));
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
