//! What the filter costs a connection in a real Envoy: CPU of Envoy's process beside no filter and a network filter that
//! does nothing (built with the SDK as it comes), and how fast a connection that was let through carries bytes.
//!
//! All variants run in one Envoy with one worker, in turns, and the median of the rounds counts: machines differ and are
//! noisy, ratios hold.

mod measure;
// Shared with the tests.
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Listener, TcpStream};
use std::thread;
use std::time::Instant;

use measure::{Measured, cpu, median, pin, print_costs};
use serde_json::{Value, json};
use support::client;
use support::envoy::{Envoy, needed, new_folder};
use support::hello::client_hello;
use support::sidecar::{self, CATCH_ALL, ConnectMode, TcpListener};

const ROUNDS: usize = 80;
/// In each round, one after the other.
const CONNECTIONS: usize = 100;
/// In each round and direction.
const BULK: usize = 64 << 20;
const BULK_ROUNDS: usize = 20;
/// The position of the no-op's variant.
const NOOP: usize = 1;

const DESTINATION: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), 443);

struct Variant {
    name: &'static str,
    filters: Vec<Value>,
    mode: ConnectMode,
    /// What the client sends first.
    first: Vec<u8>,
    is_denied: bool,
    /// The variant without a filter that does otherwise the same.
    base: usize,
}

#[allow(clippy::print_stdout, reason = "a benchmark prints what it measured")]
fn main() {
    // `cargo test --benches` runs this with --test: measuring is for `cargo bench`.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let variants = variants();
    let folder = new_folder();
    let listeners: Vec<Value> = variants
        .iter()
        .map(|variant| {
            let mut listener = TcpListener {
                name: variant.name,
                chain: CATCH_ALL,
                cluster: "PassthroughCluster",
                mode: variant.mode,
                filters: variant.filters.clone(),
                access_log: &folder.join("access.log"),
            }
            .build();
            // It costs more than what is measured.
            let proxy = listener["filter_chains"][0]["filters"].as_array_mut().and_then(|filters| filters.last_mut());
            proxy.expect("a filter")["typed_config"].as_object_mut().expect("an object").remove("access_log");
            listener
        })
        .collect();
    let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &listeners, start_outside()));
    let ports: Vec<u16> = variants.iter().map(|variant| envoy.port(variant.name)).collect();
    pin(envoy.pid(), 0);
    pin(std::process::id(), 1);

    // V8 compiles what is hot in the background: let it.
    for _ in 0..6 {
        for (variant, port) in variants.iter().zip(&ports) {
            connect(*port, variant);
        }
    }
    let mut rounds = vec![Vec::new(); variants.len()];
    for _ in 0..ROUNDS {
        for ((variant, port), costs) in variants.iter().zip(&ports).zip(&mut rounds) {
            let before = cpu(envoy.pid());
            for _ in 0..CONNECTIONS {
                connect(*port, variant);
            }
            costs.push((cpu(envoy.pid()) - before).as_secs_f64() * 1e6 / CONNECTIONS as f64);
        }
    }
    println!("\nCPU of Envoy per connection, median of {ROUNDS} rounds of {CONNECTIONS} connections\n");
    let measured = variants.iter().zip(&rounds).map(|(variant, rounds)| Measured {
        name: variant.name,
        base: variant.base,
        rounds,
    });
    print_costs(&measured.collect::<Vec<Measured>>(), NOOP);

    let bulk: Vec<usize> = (0..variants.len()).filter(|position| variants[*position].is_bulk()).collect();
    let mut rates = vec![[Vec::new(), Vec::new()]; bulk.len()];
    for _ in 0..BULK_ROUNDS {
        for (position, rates) in bulk.iter().zip(&mut rates) {
            for (rates, rate) in rates.iter_mut().zip(transfer(ports[*position], &variants[*position])) {
                rates.push(rate);
            }
        }
    }
    println!("\nBytes over one connection, median of {} rounds of {} MiB each way\n", BULK_ROUNDS, BULK >> 20);
    println!("{:<44} {:>10} {:>8} {:>10} {:>8}", "", "sent MiB/s", "ratio", "recv MiB/s", "ratio");
    for (row, position) in bulk.iter().enumerate() {
        let ratio = |way: usize| {
            median(
                &mut rates[row][way].iter().zip(&rates[0][way]).map(|(ours, none)| ours / none).collect::<Vec<f64>>(),
            )
        };
        let rate = |way: usize| median(&mut rates[row][way].clone());
        println!(
            "{:<44} {:>10.0} {:>8.2} {:>10.0} {:>8.2}",
            variants[*position].name,
            rate(0),
            ratio(0),
            rate(1),
            ratio(1)
        );
    }
}

impl Variant {
    fn is_bulk(&self) -> bool {
        !self.is_denied && self.mode == ConnectMode::Immediate
    }
}

fn variants() -> Vec<Variant> {
    let hosts = |count: usize| -> Vec<String> {
        (0..count).map(|number| format!("api-{}.region-{}.example-{}.com", number, number % 17, number % 997)).collect()
    };
    let listing = |hosts: &[String]| vec![sidecar::tcp_filter(&json!({"registry": [{"hosts": hosts}]}).to_string())];
    let (ten, most) = (hosts(10), hosts(50_000));
    let listed = client_hello(Some(&ten[3]));
    let by_address =
        json!({"registry": [{"addresses": ["203.0.113.0/24"], "ports": [{"number": 443, "protocol": "TCP"}]}]});
    let mut noop = sidecar::network_plugin("noop-tcp", "");
    noop["config"]["vm_config"]["code"]["local"]["filename"] =
        json!(needed("NOOP_WASM", "dist/noop.wasm", "make bench"));
    noop["config"].as_object_mut().expect("an object").remove("configuration");
    let noop = json!({"name": "noop", "typed_config": noop});

    let variant = |name, filters, first: &[u8]| Variant {
        name,
        filters,
        mode: ConnectMode::Immediate,
        first: first.to_vec(),
        is_denied: false,
        base: 0,
    };
    let mut variants = vec![
        variant("no filter", vec![], &listed),
        variant("SDK no-op", vec![noop], &listed),
        variant("TLS listed, 10 hosts", listing(&ten), &listed),
        variant("TLS listed, 50,000 hosts", listing(&most), &client_hello(Some(&most[33_333]))),
        variant("TCP listed by address", vec![sidecar::tcp_filter(&by_address.to_string())], &listed),
        variant(
            "HTTP listed, 10 hosts",
            listing(&ten),
            format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", ten[3]).as_bytes(),
        ),
        Variant {
            is_denied: true,
            ..variant("TLS denied, 50,000 hosts", listing(&most), &client_hello(Some("other.test")))
        },
    ];
    if let Some(mode) = ConnectMode::lazy() {
        let base = variants.len();
        for (name, filters) in [
            ("ON_DOWNSTREAM_DATA: no filter", vec![]),
            ("ON_DOWNSTREAM_DATA: TLS listed, 50,000 hosts", listing(&most)),
        ] {
            variants.push(Variant { mode, base, ..variant(name, filters, &client_hello(Some(&most[33_333]))) });
        }
        variants.push(Variant {
            mode,
            base,
            is_denied: true,
            ..variant("ON_DOWNSTREAM_DATA: TLS denied, 50,000 hosts", listing(&most), &client_hello(Some("other.test")))
        });
    }
    variants
}

/// One connection: what the client says comes back, or it is closed.
fn connect(port: u16, variant: &Variant) {
    let mut stream = client::connect(port, DESTINATION);
    // What is denied may be closed by now.
    let _ = stream.write_all(&variant.first);
    let echoed = client::read_up_to(&mut stream, variant.first.len());
    assert_eq!(echoed.is_empty(), variant.is_denied, "{}", variant.name);
}

/// MiB per second, out and in.
fn transfer(port: u16, variant: &Variant) -> [f64; 2] {
    let mut stream = client::connect(port, DESTINATION);
    stream.write_all(&variant.first).expect("Envoy hung up");
    client::read_up_to(&mut stream, variant.first.len());
    let block = vec![0; 1 << 20];
    let rate = |start: Instant| (BULK >> 20) as f64 / start.elapsed().as_secs_f64();
    let start = Instant::now();
    // The first byte tells the outside world that many are to come.
    for _ in 0..BULK >> 20 {
        stream.write_all(&block).expect("Envoy hung up");
    }
    // All have arrived when it begins to answer.
    let mut first = [0];
    stream.read_exact(&mut first).expect("Envoy hung up");
    let sent = rate(start);
    let start = Instant::now();
    let received = std::io::copy(&mut stream.take(BULK as u64 - 1), &mut std::io::sink()).expect("Envoy hung up");
    assert_eq!(received, BULK as u64 - 1);
    [sent, rate(start)]
}

/// Sends back what comes first; then takes [`BULK`] bytes and sends as many.
fn start_outside() -> SocketAddr {
    let listener = Listener::bind("127.0.0.1:0").expect("no port");
    let address = listener.local_addr().expect("no address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let count = stream.read(&mut buffer)?;
    stream.write_all(&buffer[..count])?;
    let mut left = BULK;
    while left > 0 {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => left = left.saturating_sub(count),
        }
    }
    for _ in 0..BULK >> 20 {
        stream.write_all(&buffer)?;
    }
    Ok(())
}
