//! Istio's ServiceEntry: what it registers, and for which namespaces.
//!
//! Read as istiod reads it. Whether the filter can take its hosts is not decided here: `egress_filter` does that.

use std::borrow::Cow;

use egress_filter::address::Cidr;
use egress_filter::registry::{Family, InvalidProtocol, Protocol};

use crate::document::Node;
use crate::field::{Element, FieldReader, InvalidObject, Text};
use crate::object::{Kind, Object};

/// A ServiceEntry.
#[derive(Debug)]
pub struct ServiceEntry<'a> {
    /// The object.
    pub object: Object<'a>,
    /// Its namespace; empty where the file leaves that to `kubectl apply -n`: whoever knows it may set it.
    pub namespace: &'a str,
    /// At least one.
    pub hosts: Vec<Text<'a>>,
    /// IPs and CIDRs.
    pub addresses: Vec<Address<'a>>,
    /// None: Istio opens no port for it.
    pub ports: Vec<Port<'a>>,
    /// Whether what it registers is inside the mesh.
    pub location: Location,
    /// How Istio finds the address to connect to.
    pub resolution: Resolution,
    /// Empty: the mesh's default.
    pub export_to: Vec<Text<'a>>,
    /// How many endpoints it has.
    pub endpoints: usize,
}

/// An element of `addresses`.
#[derive(Clone, Copy, Debug)]
pub struct Address<'a> {
    /// As it was written.
    pub text: &'a str,
    /// What that is.
    pub cidr: Cidr,
    /// Where it stands.
    pub node: &'a Node,
}

/// An element of `ports`.
#[derive(Clone, Copy, Debug)]
pub struct Port<'a> {
    /// 1 to 65535.
    pub number: u16,
    /// May be empty.
    pub name: &'a str,
    /// What is spoken there.
    pub protocol: PortProtocol,
    /// Where it stands.
    pub node: &'a Node,
}

/// `ports[].protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortProtocol {
    /// None is given: Istio finds out.
    Any,
    /// One that sidecars see.
    Named {
        /// In upper case.
        name: &'static str,
        /// What that says about the bytes.
        family: Family,
    },
    /// Sidecars do not see it.
    Udp,
}

/// `location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Outside the mesh: the default.
    MeshExternal,
    /// Inside.
    MeshInternal,
}

/// `resolution`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Wherever the client wants to go: the default.
    None,
    /// To the endpoints.
    Static,
    /// Where the DNS says.
    Dns,
    /// Where the DNS says, one address at a time.
    DnsRoundRobin,
    /// Where the DNS says for the name in the request.
    DynamicDns,
}

impl<'a> ServiceEntry<'a> {
    /// Reads a ServiceEntry; `None` if the object is something else.
    ///
    /// # Errors
    ///
    /// Everything in it that istiod would not take either.
    pub fn of(object: Object<'a>) -> Result<Option<Self>, InvalidObject> {
        if object.kind != Kind::ServiceEntry {
            return Ok(None);
        }
        let mut reader = FieldReader::new(object);
        let Some(spec) = reader.map(object.node, "", "spec") else {
            reader.complain(object.node, "spec", "it is missing; add it, with hosts and ports");
            return reader.finish(None);
        };
        let hosts = reader.texts(spec, "spec", "hosts");
        if spec.get("hosts").is_none_or(|hosts| hosts.list().is_empty()) {
            reader.complain(spec, "spec.hosts", "there is none; list the host names");
        }
        let entry = ServiceEntry {
            object,
            namespace: object.namespace(),
            hosts,
            addresses: addresses(&mut reader, spec),
            ports: ports(&mut reader, spec),
            location: choice(&mut reader, spec, "location", LOCATIONS, Location::MeshExternal),
            resolution: choice(&mut reader, spec, "resolution", RESOLUTIONS, Resolution::None),
            export_to: reader.texts(spec, "spec", "exportTo"),
            endpoints: reader.list(spec, "spec", "endpoints").len(),
        };
        reader.finish(Some(entry))
    }

    /// `NAMESPACE/NAME`, or the name alone where the object has no namespace.
    #[must_use]
    pub fn name(&self) -> Cow<'a, str> {
        match self.namespace {
            "" => Cow::Borrowed(self.object.name()),
            namespace => Cow::Owned(format!("{namespace}/{}", self.object.name())),
        }
    }

    /// Whether workloads of `namespace` may see it, as far as `exportTo` decides. `default_export_to` is
    /// `meshConfig.defaultServiceExportTo`; empty is `*`. A Sidecar may take it from them again.
    #[must_use]
    pub fn is_visible_in(&self, namespace: &str, default_export_to: &[String]) -> bool {
        let own = self.namespace;
        if self.export_to.is_empty() {
            is_exported_to(own, namespace, default_export_to.iter().map(String::as_str))
        } else {
            is_exported_to(own, namespace, self.export_to.iter().map(|target| target.text))
        }
    }
}

impl PortProtocol {
    /// What it says about the bytes; `None` for any and for UDP.
    #[must_use]
    pub fn family(self) -> Option<Family> {
        match self {
            PortProtocol::Named { family, .. } => Some(family),
            PortProtocol::Any | PortProtocol::Udp => None,
        }
    }
}

/// As istiod does it: `*` wins over all else, then `~`.
fn is_exported_to<'t>(own: &str, namespace: &str, targets: impl Iterator<Item = &'t str> + Clone) -> bool {
    let has = |wanted: &str| targets.clone().any(|target| target == wanted);
    if targets.clone().next().is_none() || has("*") {
        return true;
    }
    !has("~") && (has(namespace) || has(".") && own == namespace)
}

const LOCATIONS: &[(&str, Location)] =
    &[("MESH_EXTERNAL", Location::MeshExternal), ("MESH_INTERNAL", Location::MeshInternal)];

const RESOLUTIONS: &[(&str, Resolution)] = &[
    ("NONE", Resolution::None),
    ("STATIC", Resolution::Static),
    ("DNS", Resolution::Dns),
    ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
    ("DYNAMIC_DNS", Resolution::DynamicDns),
];

fn choice<'a, T: Copy>(reader: &mut FieldReader<'a>, spec: &'a Node, key: &str, known: &[(&str, T)], default: T) -> T {
    let Some(Text { text, node }) = reader.text(spec, "spec", key) else {
        return default;
    };
    let found = known.iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        reader.complain(node, format!("spec.{key}"), format_args!("unknown value; use one of {}", names.join(", ")));
    }
    found.map_or(default, |(_, value)| *value)
}

fn addresses<'a>(reader: &mut FieldReader<'a>, spec: &'a Node) -> Vec<Address<'a>> {
    let mut addresses = Vec::new();
    for (index, Text { text, node }) in reader.texts(spec, "spec", "addresses").into_iter().enumerate() {
        match text.parse() {
            Ok(cidr) => addresses.push(Address { text, cidr, node }),
            Err(invalid) => reader.complain(node, format!("spec.addresses[{index}]"), invalid),
        }
    }
    addresses
}

fn ports<'a>(reader: &mut FieldReader<'a>, spec: &'a Node) -> Vec<Port<'a>> {
    let mut ports = Vec::new();
    for Element { path, node } in reader.list(spec, "spec", "ports") {
        let name = reader.text(node, &path, "name").map_or("", |text| text.text);
        let protocol = protocol(reader, node, &path);
        match reader.port(node, &path, "number") {
            Some(number @ 1..) => ports.push(Port { number, name, protocol, node }),
            Some(0) => reader.complain(node, format!("{path}.number"), "0 is no port; use one from 1 to 65535"),
            None if node.get("number").is_none() => {
                reader.complain(node, format!("{path}.number"), "it is missing; add it, such as number: 443");
            }
            None => {}
        }
    }
    ports
}

fn protocol<'a>(reader: &mut FieldReader<'a>, port: &'a Node, path: &str) -> PortProtocol {
    let Some(Text { text, node }) = reader.text(port, path, "protocol").filter(|text| !text.text.is_empty()) else {
        return PortProtocol::Any;
    };
    let name = Protocol::NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(text));
    match (name, text.parse::<Protocol>()) {
        (Some(name), Ok(protocol)) => PortProtocol::Named { name, family: protocol.family() },
        (_, Err(InvalidProtocol::Udp)) => PortProtocol::Udp,
        _ => {
            let known = Protocol::NAMES.join(", ");
            reader.complain(node, format!("{path}.protocol"), format_args!("unknown protocol; use one of {known}"));
            PortProtocol::Any
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::objects;
    use crate::source::Document;

    fn document(yaml: &str) -> Document {
        let root = crate::document::read(yaml).unwrap().remove(0);
        Document { origin: "se.yaml".into(), root, is_named: true, lines: Vec::new().into() }
    }

    fn with_export_to(export_to: &str) -> Document {
        document(&format!(
            "{{kind: ServiceEntry, metadata: {{name: x, namespace: own}}, spec: {{hosts: [a.test], exportTo: {export_to}}}}}"
        ))
    }

    #[test]
    fn is_visible_where_export_to_says() {
        // exportTo, meshConfig.defaultServiceExportTo, visible in its own namespace, in another.
        for (export_to, default, own, other) in [
            ("[]", &[][..], true, true),
            ("null", &[], true, true),
            ("['*']", &["."], true, true),
            ("[.]", &[], true, false),
            ("[other]", &[], false, true),
            ("[., other]", &[], true, true),
            ("[own]", &[], true, false),
            ("[third]", &[], false, false),
            ("['~']", &[], false, false),
            ("[]", &["."], true, false),
            ("[]", &["other"], false, true),
            ("[]", &["~"], false, false),
        ] {
            let document = with_export_to(export_to);
            let entry = ServiceEntry::of(objects(std::slice::from_ref(&document))[0]).unwrap().unwrap();
            let default: Vec<String> = default.iter().map(|&text: &&str| text.to_owned()).collect();
            let seen = (entry.is_visible_in("own", &default), entry.is_visible_in("other", &default));
            assert_eq!(seen, (own, other), "exportTo: {export_to}, default {default:?}");
        }
    }

    #[test]
    fn says_everything_that_is_wrong() {
        let document = document(
            "kind: ServiceEntry\nmetadata: {name: bad, namespace: shop}\nspec:\n  hosts: [443]\n  addresses: [a.test]\n  \
             location: OUTSIDE\n  ports:\n  - {number: '443', protocol: TLS}\n  - {number: 0}\n  - {protocol: SMTP}\n",
        );
        let invalid = ServiceEntry::of(objects(std::slice::from_ref(&document))[0]).unwrap_err();
        assert_eq!(
            invalid.to_string(),
            "\
se.yaml:4:11: ServiceEntry shop/bad: spec.hosts[0]: 443: expected a text; put it in quotes
se.yaml:5:15: ServiceEntry shop/bad: spec.addresses[0]: \"a.test\": not an IP address or CIDR
se.yaml:8:14: ServiceEntry shop/bad: spec.ports[0].number: \"443\": not a port; use a number from 1 to 65535, without quotes
se.yaml:9:5: ServiceEntry shop/bad: spec.ports[1].number: 0 is no port; use one from 1 to 65535
se.yaml:10:16: ServiceEntry shop/bad: spec.ports[2].protocol: \"SMTP\": unknown protocol; use one of HTTP, HTTPS, HTTP2, \
             GRPC, GRPC-WEB, TLS, TCP, MONGO, MYSQL, REDIS
se.yaml:10:5: ServiceEntry shop/bad: spec.ports[2].number: it is missing; add it, such as number: 443
se.yaml:6:13: ServiceEntry shop/bad: spec.location: \"OUTSIDE\": unknown value; use one of MESH_EXTERNAL, MESH_INTERNAL"
        );
    }

    #[test]
    fn reads_protocols_in_any_case() {
        let document = document(
            "{kind: ServiceEntry, metadata: {name: x}, spec: {hosts: [a.test], ports: [{number: 1, protocol: Mongo}, \
             {number: 2, protocol: grpc-Web}, {number: 3, protocol: udp}, {number: 4}, {number: 5, protocol: ''}]}}",
        );
        let entry = ServiceEntry::of(objects(std::slice::from_ref(&document))[0]).unwrap().unwrap();
        let protocols: Vec<PortProtocol> = entry.ports.iter().map(|port| port.protocol).collect();
        assert_eq!(
            protocols,
            [
                PortProtocol::Named { name: "MONGO", family: Family::Tcp },
                PortProtocol::Named { name: "GRPC-WEB", family: Family::Http },
                PortProtocol::Udp,
                PortProtocol::Any,
                PortProtocol::Any
            ]
        );
    }
}
