//! `egress-tcp`: decides each connection by its address or by its first bytes, before anything of these goes upstream.
//!
//! A connection that its address does not decide is held: what the client sends stays in Envoy's buffer and is read from
//! there, until it names whom the client wants, the server speaks, the client ends, or time is up. Then it is let through
//! byte for byte, or both sides are closed.
//!
//! Whatever `tcp_proxy` does meanwhile is its own: in its immediate mode it connects upstream at once and reads from the
//! client only when that is done; with `upstream_connect_mode: ON_DOWNSTREAM_DATA` it connects when data is let through.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use super::host::{self, MetricKind};
use super::plugin::{Plugin, host_key, is_plain};
use super::vm;
use crate::inspect::{Asked, Inspector};
use crate::mesh::Route;
use crate::metrics;
use crate::policy::{
    Attributes, Counted, Decision, Destination, Policy, Reason, Target, Unnamed, Verdict, WireProtocol,
};

/// How many bytes are read from Envoy's buffer at a time: nearly every client says enough in so many.
const PIECE: usize = 4096;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Let through what there is.
    Release,
    /// Keep what the client sent.
    Hold,
    /// Let through what was kept of the client's, too.
    Resume,
    /// Close both sides.
    Close,
}

/// What the connections of one plugin instance share.
pub(super) struct TcpPlugin {
    plugin: Plugin,
    /// How many connections are held. Time may be up for them.
    held: Cell<usize>,
    /// Whether Envoy calls [`TcpPlugin::tick`].
    ticks: Cell<bool>,
    traffic: RefCell<TrafficTable>,
}

/// Metrics of hosts whose label is bounded: positions by [`host_key`].
#[derive(Default)]
struct TrafficTable {
    positions: HashMap<u64, u32>,
    rows: Vec<Traffic>,
}

/// The metrics of connections that were let through; those that could not be defined are absent.
#[derive(Clone, Copy, Default)]
struct Traffic {
    active: Option<u32>,
    sent: Option<u32>,
    received: Option<u32>,
}

impl TcpPlugin {
    pub(super) fn new(policy: Rc<Policy>) -> Self {
        TcpPlugin {
            plugin: Plugin::new(policy, metrics::connections),
            held: Cell::default(),
            ticks: Cell::default(),
            traffic: RefCell::default(),
        }
    }

    /// Whether any connection is held. If none is, there are no ticks until one is.
    pub(super) fn tick(&self) -> bool {
        let holds = self.held.get() > 0;
        if !holds {
            self.ticks.set(false);
            host::set_tick_period(Duration::ZERO);
        }
        holds
    }

    fn hold(&self) {
        self.held.set(self.held.get() + 1);
        if !self.ticks.replace(true) {
            // Time is up at the second tick after it at the latest.
            let period = self.plugin.policy().inspection_timeout() / 4;
            host::set_tick_period(period.clamp(Duration::from_millis(1), Duration::from_secs(1)));
        }
    }

    /// Counts a decision and reports it. `None` if it denies; otherwise where the connection's bytes are counted.
    fn conclude(
        &self,
        decision: &Decision<'_>,
        destination: &Destination<'_>,
        attributes: &ConnectionAttributes<'_>,
    ) -> Option<Traffic> {
        let protocol = destination.protocol;
        let label = decision.counted.is_unbounded().then(|| self.plugin.label(decision.counted));
        self.plugin.count(decision, protocol, label.as_deref());
        if !is_plain(decision.reason) {
            self.plugin.report(decision, destination, attributes.port());
        }
        if decision.is_denied() {
            return None;
        }
        let traffic = self.traffic(decision.counted, protocol, label);
        traffic.add(traffic.active, 1);
        Some(traffic)
    }

    fn traffic(&self, counted: Counted<'_>, protocol: WireProtocol, label: Option<String>) -> Traffic {
        let key = host_key(counted, protocol);
        if let Some(traffic) = key.and_then(|key| self.traffic.borrow().get(key)) {
            return traffic;
        }
        let label = label.unwrap_or_else(|| self.plugin.label(counted));
        let traffic = Traffic {
            active: vm::metric(MetricKind::Gauge, metrics::connections_active(&label, protocol)),
            sent: vm::metric(MetricKind::Counter, metrics::sent_bytes(&label, protocol)),
            received: vm::metric(MetricKind::Counter, metrics::received_bytes(&label, protocol)),
        };
        if let Some(key) = key {
            self.traffic.borrow_mut().insert(key, traffic);
        }
        traffic
    }
}

impl TrafficTable {
    fn get(&self, key: u64) -> Option<Traffic> {
        self.rows.get(*self.positions.get(&key)? as usize).copied()
    }

    fn insert(&mut self, key: u64, traffic: Traffic) {
        // There are fewer patterns than that.
        let position = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.positions.insert(key, position);
        self.rows.push(traffic);
    }
}

impl Traffic {
    fn add(self, metric: Option<u32>, by: i64) {
        if let Some(id) = metric
            && by != 0
        {
            host::add(id, by);
        }
    }

    fn sent(self, bytes: usize) {
        self.add(self.sent, i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn received(self, bytes: usize) {
        self.add(self.received, i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// One connection.
pub(super) struct TcpStream {
    plugin: Rc<TcpPlugin>,
    state: State,
}

enum State {
    /// Envoy has not said that there is a connection.
    New,
    /// It is not decided, and nothing of the client's goes upstream.
    Held(Held),
    /// It was let through.
    Released {
        traffic: Traffic,
        /// Whether anything was sent.
        has_sent: bool,
    },
    /// It was denied.
    Closed,
}

/// A connection that is not decided.
struct Held {
    destination: OnceCell<Option<SocketAddr>>,
    /// The SNI that a `tls_inspector` read: only the route is still missing.
    server_name: Option<Vec<u8>>,
    inspector: Inspector,
    /// How many bytes the inspector has read, and how many there are.
    read: usize,
    buffered: usize,
    /// Since when the client could have spoken.
    since: Option<Duration>,
}

impl TcpStream {
    pub(super) fn new(plugin: Rc<TcpPlugin>) -> Self {
        TcpStream { plugin, state: State::New }
    }

    /// Whether it is held, by this plugin instance.
    pub(super) fn is_held_by(&self, plugin: &Rc<TcpPlugin>) -> bool {
        matches!(self.state, State::Held(_)) && Rc::ptr_eq(&self.plugin, plugin)
    }

    /// Decides by what is known without a byte: addresses, and the SNI that a `tls_inspector` read.
    pub(super) fn on_new_connection(&mut self) -> Act {
        let held = Held {
            destination: OnceCell::new(),
            server_name: host::property("connection\0requested_server_name"),
            inspector: Inspector::default(),
            read: 0,
            buffered: 0,
            since: None,
        };
        let attributes = ConnectionAttributes::new(&held, Moment::Start);
        let policy = self.plugin.plugin.policy();
        let asked = held.server_name.as_deref().map_or(UNSEEN, Asked::tls);
        let decision = match held.server_name {
            Some(_) => policy.decide_unrouted(&asked.destination, &attributes),
            None => policy.decide_unseen(&attributes),
        };
        match decision {
            Some(decision) => {
                self.state = State::of(self.plugin.conclude(&decision, &asked.destination, &attributes), 0);
                self.state.act()
            }
            None => {
                self.state = State::Held(held);
                self.plugin.hold();
                Act::Release
            }
        }
    }

    /// `buffered` bytes of the client's are in Envoy's buffer.
    pub(super) fn on_downstream_data(&mut self, buffered: usize, end_of_stream: bool) -> Act {
        match &mut self.state {
            State::New | State::Closed => Act::Hold,
            State::Released { traffic, has_sent } => {
                traffic.sent(buffered);
                *has_sent |= buffered > 0;
                if end_of_stream && !*has_sent && is_not_routed() { Act::Close } else { Act::Release }
            }
            State::Held(held) => {
                held.buffered = buffered;
                let asked = if held.server_name.is_some() { held.known() } else { held.read(end_of_stream) };
                let Some(asked) = asked else {
                    // Envoy reads, so the upstream is connected, or waits for this data.
                    held.since.get_or_insert_with(host::now);
                    return Act::Hold;
                };
                let traffic = self.plugin.decide(&asked, held);
                let act = self.settle(traffic);
                // With ON_DOWNSTREAM_DATA, Envoy neither connects nor ends where nothing was sent.
                if end_of_stream && buffered == 0 && is_not_routed() { Act::Close } else { act }
            }
        }
    }

    /// `count` bytes of the server's have come.
    pub(super) fn on_upstream_data(&mut self, count: usize) -> Act {
        match &self.state {
            State::New | State::Closed => Act::Hold,
            State::Released { traffic, .. } => {
                traffic.received(count);
                Act::Release
            }
            // It merely closes.
            State::Held(_) if count == 0 => Act::Release,
            State::Held(held) => {
                let traffic = self.plugin.decide(&held.known().unwrap_or(Asked::SERVER_FIRST), held);
                let has_buffered = held.buffered > 0;
                match self.settle(traffic) {
                    Act::Release => {
                        if let State::Released { traffic, .. } = &self.state {
                            traffic.received(count);
                        }
                        if has_buffered { Act::Resume } else { Act::Release }
                    }
                    act => act,
                }
            }
        }
    }

    /// Decides if time is up. The stream must be the effective context.
    pub(super) fn on_tick(&mut self, now: Duration) -> Act {
        let State::Held(held) = &mut self.state else {
            return Act::Release;
        };
        let since = match held.since {
            Some(since) => since,
            // The client may have spoken long ago: Envoy does not read before it has connected.
            None if is_connecting() => return Act::Hold,
            None => *held.since.insert(now),
        };
        if now.saturating_sub(since) < self.plugin.plugin.policy().inspection_timeout() {
            return Act::Hold;
        }
        let traffic = self.plugin.decide(&held.known().unwrap_or(Asked::SILENT), held);
        let has_buffered = held.buffered > 0;
        match self.settle(traffic) {
            Act::Release if has_buffered => Act::Resume,
            act => act,
        }
    }

    /// Leaves the held state.
    fn settle(&mut self, traffic: Option<Traffic>) -> Act {
        let buffered = self.release();
        self.state = State::of(traffic, buffered);
        self.state.act()
    }

    /// Gives back what a held stream takes of the plugin and the VM. Returns how many bytes of its client's are kept.
    fn release(&self) -> usize {
        let State::Held(held) = &self.state else {
            return 0;
        };
        self.plugin.held.set(self.plugin.held.get().saturating_sub(1));
        vm::end_inspection(held.read);
        held.buffered
    }
}

impl Drop for TcpStream {
    /// Counts a connection that ended undecided, and takes one that was let through from the active ones. Envoy deletes
    /// the context before it writes the access log.
    fn drop(&mut self) {
        match &self.state {
            State::New | State::Closed => {}
            State::Released { traffic, .. } => traffic.add(traffic.active, -1),
            State::Held(held) => {
                self.release();
                self.plugin.end(held);
            }
        }
    }
}

impl TcpPlugin {
    fn decide(&self, asked: &Asked<'_>, held: &Held) -> Option<Traffic> {
        let attributes = ConnectionAttributes { port: asked.port, ..ConnectionAttributes::new(held, Moment::Later) };
        let decision = self.plugin.policy().decide(&asked.destination, &attributes);
        self.conclude(&decision, &asked.destination, &attributes)
    }

    /// Counts a connection that ended undecided.
    fn end(&self, held: &Held) {
        let attributes = ConnectionAttributes::new(held, Moment::Later);
        let (verdict, reason) = match host::text_property("xds\0cluster_name").as_deref() {
            Some("BlackHoleCluster") => (Verdict::Denied, Reason::MeshDenied),
            _ => (Verdict::Undecided, Reason::ClosedEarly),
        };
        let asked = held.known().unwrap_or(UNSEEN);
        let counted = match &asked.destination.target {
            Target::Name(name) => Counted::Name(name.as_str()),
            _ => Counted::Address(attributes.address(), attributes.port()),
        };
        let decision = Decision { verdict, reason, counted, entry: None };
        let protocol = asked.destination.protocol;
        self.plugin.count(&decision, protocol, None);
        self.plugin.report(&decision, &asked.destination, attributes.port());
    }
}

impl State {
    fn of(traffic: Option<Traffic>, buffered: usize) -> Self {
        match traffic {
            Some(traffic) => {
                traffic.sent(buffered);
                State::Released { traffic, has_sent: buffered > 0 }
            }
            None => State::Closed,
        }
    }

    fn act(&self) -> Act {
        if matches!(self, State::Closed) { Act::Close } else { Act::Release }
    }
}

/// A connection of which no byte was seen, and none will be.
const UNSEEN: Asked<'static> = Asked {
    destination: Destination { protocol: WireProtocol::Tcp, target: Target::Unnamed(Unnamed::Opaque) },
    port: None,
};

impl Held {
    /// What is known without reading.
    fn known(&self) -> Option<Asked<'_>> {
        self.server_name.as_deref().map(Asked::tls)
    }

    /// Reads on where it stopped. `None` while more must come.
    fn read(&mut self, end_of_stream: bool) -> Option<Asked<'static>> {
        while self.read < self.buffered {
            let piece = host::downstream_data(self.read, PIECE.min(self.buffered - self.read)).unwrap_or_default();
            // Nothing comes where Envoy has no buffer, which then cannot be held either.
            if piece.is_empty() || !vm::inspect(piece.len()) {
                return Some(Asked::SILENT);
            }
            self.read += piece.len();
            let asked = self.inspector.read(&piece);
            if asked.is_some() {
                return asked;
            }
        }
        end_of_stream.then(|| self.inspector.end())
    }
}

/// Whether Envoy has chosen an upstream and is not connected to it.
fn is_connecting() -> bool {
    !is_not_routed() && host::property("upstream\0local_address").is_none()
}

/// Whether Envoy has chosen no upstream: with `ON_DOWNSTREAM_DATA` it does not before data is let through.
fn is_not_routed() -> bool {
    host::property("xds\0cluster_name").is_none()
}

/// When a connection is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// No upstream is chosen yet.
    Start,
    Later,
}

/// What Envoy knows of a connection, each asked at most once at each moment.
struct ConnectionAttributes<'a> {
    held: &'a Held,
    moment: Moment,
    /// Of a CONNECT request.
    port: Option<u16>,
    route: OnceCell<RouteName>,
}

enum RouteName {
    Cluster(String),
    Chain(Option<String>),
}

impl<'a> ConnectionAttributes<'a> {
    fn new(held: &'a Held, moment: Moment) -> Self {
        ConnectionAttributes { held, moment, port: None, route: OnceCell::new() }
    }

    fn destination(&self) -> Option<SocketAddr> {
        *self.held.destination.get_or_init(host::destination)
    }
}

impl Attributes for ConnectionAttributes<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.destination().map(|address| address.ip().to_canonical())
    }

    fn port(&self) -> Option<u16> {
        self.port.or_else(|| self.destination().map(|address| address.port()))
    }

    fn route(&self) -> Route<'_> {
        let name = self.route.get_or_init(|| {
            let cluster = match self.moment {
                Moment::Start => None,
                Moment::Later => host::text_property("xds\0cluster_name"),
            };
            match cluster {
                Some(cluster) => RouteName::Cluster(cluster),
                None => RouteName::Chain(host::text_property("xds\0filter_chain_name")),
            }
        });
        match name {
            RouteName::Cluster(name) => Route::from_cluster(name),
            RouteName::Chain(name) => Route::from_filter_chain(name.as_deref().unwrap_or_default()),
        }
    }

    fn is_routed_by_name(&self) -> bool {
        self.held.server_name.is_some()
    }

    fn now(&self) -> i64 {
        host::unix_seconds()
    }
}
