//! `egress-tcp`: decides each connection by its address or by its first bytes, before anything of these goes upstream.
//!
//! A connection that its address does not decide is held: what the client sends stays in Envoy's buffer and is read from
//! there, until it names whom the client wants, the server speaks, the client ends, or time is up. Then it is let through
//! byte for byte, or both sides are closed. Where it was let through before the client spoke and there is a deny list, the
//! client's first bytes are read as they pass, and the connection is closed if they ask for what is denied: the last of
//! the bytes that name it has not gone upstream then.
//!
//! Whatever `tcp_proxy` does meanwhile is its own: in its immediate mode it connects upstream at once and reads from the
//! client only when that is done; with `upstream_connect_mode: ON_DOWNSTREAM_DATA` it connects when data is let through.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use hashbrown::HashMap;

use super::host::{self, Level, MetricKind};
use super::plugin::{Plugin, host_key, is_plain};
use super::vm;
use crate::inspect::{Asked, Inspector};
use crate::mesh::Route;
use crate::metrics;
use crate::policy::{Attributes, Counted, Decision, Destination, Policy, Reason, Verdict, WireProtocol};

/// How many bytes are read from Envoy's buffer at a time: nearly every client says enough in so many.
const PIECE: usize = 4096;

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Let it go on.
    Continue,
    /// Keep what has come.
    Hold,
    /// Let through what was kept of the client's.
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
        let label = decision.counted.is_unbounded().then(|| self.plugin.label(decision.counted));
        self.tell(decision, destination, attributes, label.as_deref());
        if decision.is_denied() {
            return None;
        }
        let traffic = self.traffic(decision.counted, destination.protocol, label);
        traffic.add(traffic.active, 1);
        Some(traffic)
    }

    fn tell(
        &self,
        decision: &Decision<'_>,
        destination: &Destination<'_>,
        attributes: &ConnectionAttributes<'_>,
        label: Option<&str>,
    ) {
        self.plugin.count(decision, destination.protocol, label);
        if !is_plain(decision.reason) {
            let port = attributes.connect_port().or_else(|| attributes.port());
            self.plugin.report(decision, destination, port);
        }
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
    Held(Box<Held>),
    /// It was let through.
    Released(Released),
    /// It was denied.
    Closed,
}

/// A connection that is not decided.
struct Held {
    destination: OnceCell<Option<SocketAddr>>,
    /// The SNI that a `tls_inspector` read: only the route is still missing.
    server_name: Option<Vec<u8>>,
    inspector: Inspector,
    /// How many bytes the inspector has read.
    read: usize,
    /// How many bytes of the client's are kept in Envoy's buffer.
    kept: usize,
    /// Since when the client could have spoken.
    since: Option<Duration>,
}

/// A connection that was let through.
struct Released {
    traffic: Traffic,
    /// Whether anything was sent.
    has_sent: bool,
    /// What its client says first is still read, because the deny list may have it: it was let through before.
    watched: Option<Box<Held>>,
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
        let held = Box::new(Held {
            destination: OnceCell::new(),
            server_name: host::property("connection\0requested_server_name"),
            inspector: Inspector::default(),
            read: 0,
            kept: 0,
            since: None,
        });
        let attributes = ConnectionAttributes::new(&held, Moment::Start);
        let policy = self.plugin.plugin.policy();
        let asked = held.known().unwrap_or(Asked::OPAQUE);
        let decision = match held.server_name {
            Some(_) => policy.decide_unrouted(&asked.destination, &attributes),
            None => policy.decide_unseen(&attributes),
        };
        if let Some(decision) = decision {
            let traffic = self.plugin.conclude(&decision, &asked.destination, &attributes);
            return self.settle(held, traffic);
        }
        self.state = State::Held(held);
        self.plugin.hold();
        Act::Continue
    }

    /// So many bytes of the client's are in Envoy's buffer: the new ones, and those that were kept.
    pub(super) fn on_downstream_data(&mut self, buffered: usize, end_of_stream: bool) -> Act {
        match &mut self.state {
            State::New | State::Closed => Act::Hold,
            State::Released(released) => {
                if released.is_denied_late(&self.plugin, buffered) {
                    released.end();
                    self.state = State::Closed;
                    return Act::Close;
                }
                released.sent(buffered);
                let leaks = end_of_stream && !released.has_sent && is_not_routed();
                if leaks { Act::Close } else { Act::Continue }
            }
            State::Held(held) => {
                let asked = held.read(held.read, buffered, end_of_stream);
                held.kept = buffered;
                let Some(asked) = asked.or_else(|| held.known()) else {
                    // Envoy reads, so the upstream is connected, or waits for this data.
                    held.since.get_or_insert_with(host::now);
                    return Act::Hold;
                };
                let traffic = self.plugin.decide(&asked, held);
                let act = self.release(traffic);
                // With ON_DOWNSTREAM_DATA, Envoy neither connects nor ends where nothing was sent.
                if end_of_stream && buffered == 0 && is_not_routed() { Act::Close } else { act.now() }
            }
        }
    }

    /// So many bytes of the server's have come.
    pub(super) fn on_upstream_data(&mut self, count: usize) -> Act {
        let act = match &self.state {
            State::New | State::Closed => return Act::Hold,
            State::Released(_) => Act::Continue,
            // It merely closes.
            State::Held(_) if count == 0 => return Act::Continue,
            State::Held(held) => {
                let traffic = self.plugin.decide(&held.known().unwrap_or(Asked::SERVER_FIRST), held);
                self.release(traffic)
            }
        };
        if let State::Released(Released { traffic, .. }) = &self.state {
            traffic.received(count);
        }
        act
    }

    /// Decides if time is up. The stream must be the effective context.
    pub(super) fn on_tick(&mut self, now: Duration) -> Act {
        let State::Held(held) = &mut self.state else {
            return Act::Continue;
        };
        let since = match held.since {
            // A clock that was set back must not hold anything for longer.
            Some(since) => since.min(now),
            // The client may have spoken long ago: Envoy does not read before it has connected.
            None if is_connecting() => return Act::Continue,
            None => now,
        };
        held.since = Some(since);
        if now.saturating_sub(since) < self.plugin.plugin.policy().inspection_timeout() {
            return Act::Continue;
        }
        let traffic = self.plugin.decide(&held.known().unwrap_or_else(|| held.inspector.time_out()), held);
        self.release(traffic)
    }

    /// Leaves the held state. What is kept can be resumed.
    fn release(&mut self, traffic: Option<Traffic>) -> Act {
        let State::Held(held) = std::mem::replace(&mut self.state, State::Closed) else {
            return Act::Close;
        };
        self.plugin.held.set(self.plugin.held.get().saturating_sub(1));
        self.settle(held, traffic)
    }

    fn settle(&mut self, held: Box<Held>, traffic: Option<Traffic>) -> Act {
        let Some(traffic) = traffic else {
            self.state = State::Closed;
            return Act::Close;
        };
        let kept = held.kept;
        let may_be_denied = !held.is_named() && !self.plugin.plugin.policy().deny().is_empty();
        let mut released = Released { traffic, has_sent: false, watched: may_be_denied.then_some(held) };
        released.sent(kept);
        self.state = State::Released(released);
        if kept > 0 { Act::Resume } else { Act::Continue }
    }
}

impl Act {
    /// The same within the callback for the client's data, where nothing need be resumed.
    fn now(self) -> Self {
        if self == Act::Resume { Act::Continue } else { self }
    }
}

impl Drop for TcpStream {
    /// Counts a connection that ended undecided, and takes one that was let through from the active ones.
    fn drop(&mut self) {
        match &self.state {
            State::New | State::Closed => {}
            State::Released(released) => released.end(),
            State::Held(held) => {
                self.plugin.held.set(self.plugin.held.get().saturating_sub(1));
                self.plugin.end(held);
            }
        }
    }
}

impl TcpPlugin {
    fn decide(&self, asked: &Asked<'_>, held: &Held) -> Option<Traffic> {
        let attributes = ConnectionAttributes::asking(held, asked);
        let decision = self.plugin.policy().decide(&asked.destination, &attributes);
        if decision.is_denied() && attributes.route() == Route::Unknown {
            vm::say_once(
                Level::Error,
                "Envoy names no upstream for a connection, so nothing counts as inside the mesh: egress-tcp must stand \
                 directly before tcp_proxy, and ON_DOWNSTREAM_DATA belongs on catch-all chains only",
            );
        }
        self.conclude(&decision, &asked.destination, &attributes)
    }

    /// Counts a connection that ended undecided.
    fn end(&self, held: &Held) {
        let attributes = ConnectionAttributes::new(held, Moment::Later);
        let (verdict, reason) = match host::text_property("xds\0cluster_name").as_deref() {
            Some("BlackHoleCluster") => (Verdict::Denied, Reason::MeshDenied),
            _ => (Verdict::Undecided, Reason::ClosedEarly),
        };
        let asked = held.known().unwrap_or(Asked::OPAQUE);
        let counted = self.plugin.policy().decide(&asked.destination, &attributes).counted;
        let decision = Decision { verdict, reason, counted, entry: None };
        self.tell(&decision, &asked.destination, &attributes, None);
    }
}

impl Held {
    /// What is known without reading.
    fn known(&self) -> Option<Asked<'_>> {
        self.server_name.as_deref().map(Asked::tls)
    }

    /// Whether it was decided by what its client says.
    fn is_named(&self) -> bool {
        self.server_name.is_some() || self.inspector.is_done()
    }

    /// Reads what is in Envoy's buffer between two positions. `None` while more must come.
    fn read(&mut self, start: usize, end: usize, end_of_stream: bool) -> Option<Asked<'static>> {
        if self.is_named() {
            return None;
        }
        let mut position = start;
        while position < end {
            let piece = host::downstream_data(position, PIECE.min(end - position)).unwrap_or_default();
            // What cannot be read or remembered is not waited for.
            if piece.is_empty() || !vm::inspect(piece.len()) {
                return Some(self.inspector.give_up());
            }
            position += piece.len();
            self.read += piece.len();
            let asked = self.inspector.read(&piece);
            if asked.is_some() {
                return asked;
            }
        }
        end_of_stream.then(|| self.inspector.end())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        vm::end_inspection(self.read);
    }
}

impl Released {
    fn sent(&mut self, bytes: usize) {
        self.traffic.sent(bytes);
        self.has_sent |= bytes > 0;
    }

    fn end(&self) {
        self.traffic.add(self.traffic.active, -1);
    }

    /// Whether the deny list has what the client says first, and this is what it says. Under REPORT that is only told.
    fn is_denied_late(&mut self, plugin: &TcpPlugin, count: usize) -> bool {
        let Some(asked) = self.watched.as_mut().and_then(|held| held.read(0, count, false)) else {
            return false;
        };
        let Some(held) = self.watched.take() else {
            return false;
        };
        let attributes = ConnectionAttributes::asking(&held, &asked);
        let Some(decision) = plugin.plugin.policy().decide_denied(&asked.destination, &attributes) else {
            return false;
        };
        plugin.tell(&decision, &asked.destination, &attributes, None);
        decision.is_denied()
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
    connect_port: Option<u16>,
    route: OnceCell<RouteName>,
}

enum RouteName {
    Cluster(String),
    Chain(Option<String>),
}

impl<'a> ConnectionAttributes<'a> {
    fn new(held: &'a Held, moment: Moment) -> Self {
        ConnectionAttributes { held, moment, connect_port: None, route: OnceCell::new() }
    }

    fn asking(held: &'a Held, asked: &Asked<'_>) -> Self {
        ConnectionAttributes { connect_port: asked.connect_port, ..Self::new(held, Moment::Later) }
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
        self.destination().map(|address| address.port())
    }

    fn connect_port(&self) -> Option<u16> {
        self.connect_port
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
