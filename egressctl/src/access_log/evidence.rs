//! What of a line a verdict depends on. Lines with the same evidence are the same call, however many there are.

use super::Skip;
use super::fields::{Field, Fields};

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A request that Envoy parsed.
    Request,
    /// A CONNECT request.
    Connect,
    /// A TLS or TCP connection.
    Connection,
}

/// What one line says, without what differs from line to line. Empty is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence<'a> {
    /// What kind of line it is.
    pub kind: Kind,
    /// The caller's namespace.
    pub namespace: &'a str,
    /// The caller.
    pub workload: &'a str,
    /// Host or `:authority`.
    pub authority: &'a str,
    /// The SNI, as a `tls_inspector` read it.
    pub server_name: &'a str,
    /// The address and port that the client connected to.
    pub destination: &'a str,
    /// Where Envoy sent it.
    pub cluster: &'a str,
    /// The route, where a format with clusters has no cluster.
    pub route_name: &'a str,
    /// The filter's verdict; `-` where the log has a place for it and nothing in it.
    pub verdict: &'a str,
    /// The filter's reason.
    pub reason: &'a str,
    /// What the filter counted it under.
    pub host: &'a str,
}

/// The verdict of a call of which the filter left nothing: `listed` or `mesh_internal`, or no filter was there.
pub const NONE: &str = "-";

/// The namespace or workload of a call whose line does not tell it.
pub const UNKNOWN: &str = "unknown";

impl<'a> Evidence<'a> {
    /// What the values of a line say; `namespace` and `workload` are the caller's.
    ///
    /// # Errors
    ///
    /// Why the line is no call that the filter decided.
    pub fn of(fields: &'a Fields<'_>, namespace: &'a str, workload: &'a str) -> Result<Self, Skip> {
        let value = |field| fields.value(field);
        // `%UPSTREAM_CLUSTER%` is the name that statistics go by, which Istio ends so that its tags can be told apart.
        let cluster = value(Field::Cluster).trim_end_matches(';');
        if cluster.starts_with("inbound|") || cluster.starts_with("InboundPassthroughCluster") {
            return Err(Skip::Inbound);
        }
        let kind = match value(Field::Method) {
            "" if !value(Field::Authority).is_empty() => Kind::Request,
            "" if value(Field::Protocol).starts_with("HTTP/") || value(Field::Details).starts_with("http") => {
                return Err(Skip::Malformed);
            }
            "" => Kind::Connection,
            "CONNECT" => Kind::Connect,
            _ => Kind::Request,
        };
        let (verdict, reason) = match value(Field::Details).strip_prefix("egress_denied_") {
            Some(reason) if value(Field::Reason).is_empty() => ("denied", reason),
            // A 403 that no upstream sent, and nothing that tells more.
            None if !fields.has(Field::Details)
                && !fields.has(Field::Verdict)
                && fields.has(Field::UpstreamHost)
                && value(Field::UpstreamHost).is_empty()
                && value(Field::Code) == "403" =>
            {
                ("denied", "")
            }
            _ if fields.has(Field::Verdict) && value(Field::Verdict).is_empty() => (NONE, ""),
            _ => (value(Field::Verdict), value(Field::Reason)),
        };
        if verdict == "undecided" {
            return Err(Skip::ClosedEarly);
        }
        // What Envoy connects to by itself is where the client wanted to go, unless a service is known to be between.
        let destination = match value(Field::Destination) {
            "" if matches!(cluster, "" | "PassthroughCluster") => value(Field::UpstreamHost),
            destination => destination,
        };
        let is_routed = cluster.is_empty() && fields.has(Field::Cluster);
        Ok(Evidence {
            kind,
            namespace: if namespace.is_empty() { UNKNOWN } else { namespace },
            workload: if workload.is_empty() { UNKNOWN } else { workload },
            authority: value(Field::Authority),
            server_name: value(Field::ServerName),
            destination,
            cluster,
            route_name: if is_routed { value(Field::RouteName) } else { "" },
            verdict,
            reason,
            host: value(Field::Host),
        })
    }

    /// Writes it as bytes, so that equal evidence is equal bytes.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.push(match self.kind {
            Kind::Request => 0,
            Kind::Connect => 1,
            Kind::Connection => 2,
        });
        for text in self.texts() {
            // A line is no longer than 1 MiB.
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
    }

    /// Reads what [`write`](Self::write) wrote; `None` for other bytes.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let kind = match kind {
            0 => Kind::Request,
            1 => Kind::Connect,
            _ => Kind::Connection,
        };
        let mut text = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (text, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            std::str::from_utf8(text).ok()
        };
        Some(Evidence {
            kind,
            namespace: text()?,
            workload: text()?,
            authority: text()?,
            server_name: text()?,
            destination: text()?,
            cluster: text()?,
            route_name: text()?,
            verdict: text()?,
            reason: text()?,
            host: text()?,
        })
    }

    fn texts(&self) -> [&'a str; 10] {
        let Evidence { kind: _, namespace, workload, authority, server_name, destination, cluster, route_name, .. } =
            *self;
        let Evidence { verdict, reason, host, .. } = *self;
        [namespace, workload, authority, server_name, destination, cluster, route_name, verdict, reason, host]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let evidence = Evidence {
            kind: Kind::Connect,
            namespace: "shop",
            workload: "",
            authority: "a\0b",
            server_name: "",
            destination: "192.0.2.1:443",
            cluster: "PassthroughCluster",
            route_name: "",
            verdict: "denied",
            reason: "not_listed",
            host: "bücher",
        };
        let mut bytes = Vec::new();
        evidence.write(&mut bytes);
        assert_eq!(Evidence::read(&bytes), Some(evidence));
        assert_eq!(Evidence::read(&bytes[..bytes.len() - 1]), None);
    }
}
