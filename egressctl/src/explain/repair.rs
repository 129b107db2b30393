//! What to change so that a denied destination is allowed.

use egress_filter::policy::{Reason, Target, WireProtocol};
use serde::Serialize;
use serde_json::{Value, json};

use crate::call::Call;
use crate::configuration::Entry;

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repair {
    /// What to do, in one line.
    pub what: String,
    /// The YAML to put there, if it is an addition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Value>,
}

/// The smallest change that allows the call; `None` for what is allowed.
#[must_use]
pub fn of(reason: Reason, call: &Call, entry: Option<&Entry<'_>>) -> Option<Repair> {
    let at = entry.map(|entry| entry.path.as_str()).unwrap_or_default();
    let change = |what: String| Some(Repair { what, add: None });
    let extend = |what: String, add| Some(Repair { what, add: Some(add) });
    match reason {
        Reason::Listed | Reason::MeshInternal | Reason::MeshRegistry | Reason::AllowAny | Reason::ClosedEarly => None,
        Reason::NotListed => {
            let entry = entry_for(call);
            extend("add an entry".to_owned(), json!({ "registry": [entry] }))
        }
        Reason::PortNotListed => extend(format!("add the port to {at}"), json!({ "ports": [port(call)] })),
        Reason::ProtocolNotListed => extend(
            format!("add a line for this protocol to {at}.ports; lines for one port add up"),
            json!({ "ports": [port(call)] }),
        ),
        Reason::Expired => change(format!("set a later {at}.expires, or take it out")),
        Reason::DenyListed => {
            change(format!("take it out of {at}: deny wins over everything, so no registry entry can allow it"))
        }
        Reason::NoSni | Reason::NoClientData | Reason::ServerFirst | Reason::InvalidClientHello => {
            extend("it has no name to go by: list its address".to_owned(), json!({ "registry": [by_address(call)] }))
        }
        Reason::InvalidName => change(
            "let the client send a host name or an IP address in its usual form; or list the address that it connects to"
                .to_owned(),
        ),
        Reason::UnverifiedDestination => {
            let addresses: Vec<String> = call.address.iter().map(ToString::to_string).collect();
            if at.is_empty() {
                return change("add the address to mesh.addresses, or turn spoofProtection off".to_owned());
            }
            extend(
                format!("add the address to {at}, if the host really has it; or turn spoofProtection off"),
                json!({ "addresses": addresses }),
            )
        }
        Reason::MeshDenied => change("Istio has no way out for it: give it a ServiceEntry".to_owned()),
    }
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

fn by_address(call: &Call) -> Value {
    let address = call.address.map_or_else(|| "ADDRESS".to_owned(), |ip| ip.to_string());
    json!({ "addresses": [address], "ports": [port(call)] })
}

fn port(call: &Call) -> Value {
    let protocol = match call.protocol {
        WireProtocol::Http => "HTTP",
        WireProtocol::Grpc => "GRPC",
        WireProtocol::Tls => "TLS",
        WireProtocol::Tcp => "TCP",
    };
    json!({ "number": call.connect_port.or(call.port), "protocol": protocol })
}
