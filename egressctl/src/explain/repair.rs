//! What to change so that a denied destination is allowed.
//!
//! An addition is tried before it is told: the filter's own code is asked whether the entry, as it would be, permits the
//! call. The entry that a call is counted under need not be the one that lacks the least.

use egress_filter::config::KnownNode;
use egress_filter::policy::{Policy, Reason, Target, Unnamed, Verdict, WireProtocol};
use serde::Serialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::check::entries::Parsed;
use crate::configuration::{Configuration, Entry, List};

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repair {
    /// What to do, in one line.
    pub what: String,
    /// The YAML to put there, if it is an addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Value>,
}

/// A call that is not allowed, and by what.
#[derive(Debug)]
pub struct Denied<'c, 'a> {
    /// What is asked for.
    pub call: &'c Call,
    /// The configuration that does not allow it.
    pub configuration: &'c Configuration<'a>,
    /// On whose sidecar.
    pub node: &'c KnownNode,
    /// Why.
    pub reason: Reason,
    /// The entry that it is counted under.
    pub entry: Option<&'c Entry<'a>>,
    /// When, in Unix seconds.
    pub now: i64,
}

/// How many entries are tried.
const MOST_TRIED: usize = 100;

/// How an entry is changed.
enum Edit {
    /// These go into one of its lists.
    Add(&'static str, Value),
    /// It has no end any more.
    Unexpire,
}

impl Denied<'_, '_> {
    /// The smallest change that allows the call; `None` for what is allowed.
    #[must_use]
    pub fn repair(&self) -> Option<Repair> {
        let at = self.entry.map(|entry| entry.path.as_str()).unwrap_or_default();
        match self.reason {
            Reason::Listed | Reason::MeshInternal | Reason::MeshRegistry | Reason::AllowAny | Reason::ClosedEarly => {
                None
            }
            Reason::NotListed => Some(self.new_entry("add an entry")),
            Reason::PortNotListed | Reason::ProtocolNotListed | Reason::Expired | Reason::UnverifiedDestination => {
                Some(self.extended().unwrap_or_else(|| self.new_entry("add an entry")))
            }
            Reason::DenyListed => {
                change(format!("take it out of {at}: deny wins over everything, so no registry entry can allow it"))
            }
            Reason::NoSni | Reason::NoClientData | Reason::ServerFirst | Reason::InvalidClientHello => {
                Some(self.new_entry("it has no name to go by: list its address"))
            }
            Reason::InvalidName => {
                let by_address = self.call.address.is_none() || self.allows(&by_address(self.call));
                let or = if by_address { "; or list the address that it connects to" } else { "" };
                change(format!("let the client send a host name or an IP address in its usual form{or}"))
            }
            Reason::MeshDenied => change("Istio has no way out for it: give it a ServiceEntry".to_owned()),
        }
    }

    /// A change of an entry that is there: of the one that the call is counted under, if that is enough.
    fn extended(&self) -> Option<Repair> {
        let others = self.configuration.entries_for(List::Registry, self.node);
        let is_own = |entry: &Entry<'_>| self.entry.is_some_and(|own| own.path == entry.path);
        let (own, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_own);
        let candidates = own.into_iter().chain(others).map(Parsed::of).filter(|parsed| concerns(parsed, self.call));
        for Parsed { entry, .. } in candidates.take(MOST_TRIED) {
            for edit in self.edits() {
                if self.allows(&edited(entry.node.to_value(), &edit)) {
                    return Some(self.told(&entry.path, edit));
                }
            }
        }
        None
    }

    fn edits(&self) -> Vec<Edit> {
        let Call { address, port, connect_port, .. } = self.call;
        match self.reason {
            Reason::Expired => vec![Edit::Unexpire],
            Reason::UnverifiedDestination => {
                address.iter().map(|ip| Edit::Add("addresses", json!([ip.to_string()]))).collect()
            }
            // CONNECT asks for a port of its own; addresses go by the connection's.
            _ => [connect_port, port]
                .into_iter()
                .flatten()
                .map(|number| Edit::Add("ports", json!([port_line(self.call, *number)])))
                .collect(),
        }
    }

    fn told(&self, at: &str, edit: Edit) -> Repair {
        let what = match (self.reason, &edit) {
            (_, Edit::Unexpire) => format!("set a later {at}.expires, or take it out"),
            (Reason::UnverifiedDestination, _) => {
                format!("add the address to {at}, if the host really has it; or turn spoofProtection off")
            }
            (Reason::ProtocolNotListed, _) => {
                format!("add a line for this protocol to {at}.ports; lines for one port add up")
            }
            _ => format!("add the port to {at}"),
        };
        let add = if let Edit::Add(key, value) = edit { Some(json!({ key: value })) } else { None };
        Repair { what, add }
    }

    /// An entry of its own: by name, where that is enough.
    fn new_entry(&self, what: &str) -> Repair {
        let by_name = entry_for(self.call);
        let mut with_address = by_name.clone();
        if let Some(entry) = with_address.as_object_mut() {
            entry.insert("addresses".to_owned(), json!([address(self.call)]));
        }
        let candidates = [by_name.clone(), with_address.clone(), by_address(self.call)];
        if let Some(entry) = candidates.into_iter().find(|entry| self.allows(entry)) {
            return Repair { what: what.to_owned(), add: Some(json!({ "registry": [entry] })) };
        }
        let is_verified = self.configuration.node().get("spoofProtection").is_some_and(|on| on.to_json() == "true");
        if self.call.address.is_none() {
            let entry = if is_verified { with_address } else { by_name };
            return Repair { what: what.to_owned(), add: Some(json!({ "registry": [entry] })) };
        }
        let what = match &self.call.target {
            Target::Unnamed(Unnamed::InvalidClientHello) => {
                "let the client send a ClientHello that can be read: deny has hosts, and this may name one of them"
            }
            _ if is_verified => {
                "add the address to mesh.addresses, if it is the mesh's; or let the client connect to the address that it \
                 names; or turn spoofProtection off"
            }
            _ => "no entry can allow what is asked for in this way; let the client ask for it by its name",
        };
        Repair { what: what.to_owned(), add: None }
    }

    /// Whether an entry alone would allow the call, as any entry that permits it does.
    fn allows(&self, entry: &Value) -> bool {
        let denied = self.configuration.entries_for(List::Deny, self.node);
        let mut probe = serde_json::Map::new();
        probe.insert("registry".to_owned(), json!([entry]));
        probe.insert("deny".to_owned(), denied.iter().map(|entry| entry.node.to_value()).collect());
        for key in ["mesh", "spoofProtection"] {
            if let Some(node) = self.configuration.node().get(key) {
                probe.insert(key.to_owned(), node.to_value());
            }
        }
        let policy = Policy::from_json(Value::Object(probe).to_string().as_bytes(), self.node);
        policy.is_ok_and(|policy| {
            policy.decide(&self.call.destination(), &self.call.attributes(self.now)).verdict == Verdict::Allowed
        })
    }
}

fn change(what: String) -> Option<Repair> {
    Some(Repair { what, add: None })
}

/// Whether the entry has the name or address, or is for any address.
fn concerns(parsed: &Parsed<'_>, call: &Call) -> bool {
    let Call { target, address, .. } = call;
    let by_name = matches!(target, Target::Name(name) if parsed.hosts.iter().any(|(host, _)| host.matches(name)));
    let literal = if let Target::Ip(ip) = target { Some(*ip) } else { None };
    let holds = |ip| parsed.addresses.iter().any(|(cidr, _)| cidr.contains(ip));
    let is_open = parsed.addresses.is_empty() && parsed.tcp_ports().next().is_some();
    by_name || is_open || [literal, *address].into_iter().flatten().any(holds)
}

fn edited(mut entry: Value, edit: &Edit) -> Value {
    if let Some(fields) = entry.as_object_mut() {
        match edit {
            Edit::Unexpire => _ = fields.remove("expires"),
            Edit::Add(key, more) => {
                let list = fields.entry(*key).or_insert_with(|| json!([]));
                if let (Some(list), Some(more)) = (list.as_array_mut(), more.as_array()) {
                    list.extend(more.iter().cloned());
                }
            }
        }
    }
    entry
}

fn entry_for(call: &Call) -> Value {
    match &call.target {
        Target::Name(name) if call.protocol != WireProtocol::Tcp => {
            json!({ "hosts": [name.as_str()], "ports": [port(call)] })
        }
        Target::Ip(ip) => json!({ "addresses": [ip.to_string()], "ports": [port(call)] }),
        _ => by_address(call),
    }
}

/// What an address permits, it permits on the connection's port.
fn by_address(call: &Call) -> Value {
    json!({ "addresses": [address(call)], "ports": [port_line(call, call.port.or(call.connect_port).unwrap_or_default())] })
}

fn address(call: &Call) -> String {
    call.address.map_or_else(|| "ADDRESS".to_owned(), |ip| ip.to_string())
}

fn port(call: &Call) -> Value {
    port_line(call, call.connect_port.or(call.port).unwrap_or_default())
}

fn port_line(call: &Call, number: u16) -> Value {
    let protocol = match call.protocol {
        WireProtocol::Http => "HTTP",
        WireProtocol::Grpc => "GRPC",
        WireProtocol::Tls => "TLS",
        WireProtocol::Tcp => "TCP",
    };
    json!({ "number": number, "protocol": protocol })
}
