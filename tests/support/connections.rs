//! One outbound TCP listener behind `egress-tcp`, in a real Envoy, with a stand-in for the outside world.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::client;
use super::echo::Echo;
use super::envoy::{Envoy, new_folder};
use super::sidecar::{self, CATCH_ALL, ConnectMode, TcpListener};

pub const DESTINATION: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)), 443);

pub struct Setup {
    pub config: Value,
    pub chain: &'static str,
    pub cluster: &'static str,
    pub mode: ConnectMode,
    pub banner: &'static [u8],
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            config: json!({}),
            chain: CATCH_ALL,
            cluster: "PassthroughCluster",
            mode: ConnectMode::Immediate,
            banner: b"",
        }
    }
}

pub struct Mesh {
    pub envoy: Envoy,
    pub outside: Echo,
    pub port: u16,
}

impl Setup {
    pub fn start(self) -> Mesh {
        let outside = Echo::start(self.banner);
        let address = outside.address;
        self.start_with(outside, address)
    }

    /// With clusters that lead elsewhere.
    pub fn start_with(self, outside: Echo, upstream: SocketAddr) -> Mesh {
        let folder = new_folder();
        let listener = TcpListener {
            name: "tcp",
            chain: self.chain,
            cluster: self.cluster,
            mode: self.mode,
            filters: vec![sidecar::tcp_filter(&self.config.to_string())],
            access_log: &folder.join("access.log"),
        };
        let listener = listener.build();
        let envoy = Envoy::start_in(folder, sidecar::bootstrap(&json!({}), &[listener], upstream));
        let port = envoy.port("tcp");
        Mesh { envoy, outside, port }
    }
}

impl Mesh {
    pub fn connect(&self) -> TcpStream {
        client::connect(self.port, DESTINATION)
    }

    /// A connection that Envoy has given to the filter: what ends while a listener filter still reads never gets there.
    pub fn connect_through(&self) -> TcpStream {
        let total = || {
            let stats = self.envoy.admin("/stats?filter=^listener.127.0.0.1_0.downstream_cx_total$");
            stats.trim().rsplit_once(": ").unwrap().1.parse::<u64>().unwrap()
        };
        let before = total();
        let client = self.connect();
        self.envoy.wait("Envoy to take the connection", || (total() > before).then_some(()));
        client
    }

    /// Waits for a part of Envoy's log.
    #[track_caller]
    pub fn wait_for_log(&self, part: &str) {
        self.envoy.wait(part, || self.envoy.log().contains(part).then_some(()));
    }

    /// How many connections were decided so: `host protocol verdict reason`.
    pub fn decided(&self, what: &str) -> u64 {
        let parts: Vec<&str> = what.split(' ').collect();
        let [host, protocol, verdict, reason] = parts.try_into().expect("host protocol verdict reason");
        self.envoy.metric(&format!(
            "egress_connections_total{{egress_host=\"{host}\",egress_protocol=\"{protocol}\",\
             egress_reason=\"{reason}\",egress_verdict=\"{verdict}\"}}"
        ))
    }

    /// Waits until that many were.
    #[track_caller]
    pub fn wait_for(&self, count: u64, what: &str) {
        self.envoy.wait(&format!("{count} x {what}; {:?}", self.envoy.metrics("egress_conn")), || {
            (self.decided(what) == count).then_some(())
        });
    }

    /// A metric by host and protocol.
    pub fn traffic(&self, metric: &str, host: &str, protocol: &str) -> u64 {
        self.envoy.metric(&format!("{metric}{{egress_host=\"{host}\",egress_protocol=\"{protocol}\"}}"))
    }

    /// The only line of the access log.
    pub fn access_log_line(&self) -> Value {
        let path = self.envoy.folder.join("access.log");
        let line = self.envoy.wait("a line in the access log", || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.ends_with('\n').then_some(text)
        });
        serde_json::from_str(&line).unwrap()
    }

    /// Nothing is left of connections that have ended: not in Envoy, not in the filter's metrics.
    #[track_caller]
    pub fn is_empty(&self) {
        self.envoy.wait("no connection to be left", || {
            let active = self.envoy.metrics("egress_connections_active");
            let listener = self.envoy.admin("/stats?filter=^listener.*downstream_cx_active$");
            let upstream = self.envoy.admin("/stats?filter=upstream_cx_active$");
            let all_zero = |stats: &str| stats.lines().all(|line| line.ends_with(": 0") || line.contains("admin"));
            (active.iter().all(|(_, count)| *count == 0) && all_zero(&listener) && all_zero(&upstream)).then_some(())
        });
        let reloads = self.envoy.admin("/stats?filter=vm_reload");
        assert!(reloads.lines().all(|line| line.ends_with(": 0")), "{reloads}");
        assert!(!self.envoy.log().contains("panicked"), "{}", self.envoy.log());
    }
}
