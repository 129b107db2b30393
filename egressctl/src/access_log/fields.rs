//! The values of one line, by what they are, whatever the format calls them.

use std::borrow::Cow;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `%START_TIME%`.
    Time,
    /// `%REQ(:METHOD)%`.
    Method,
    /// `%REQ(:AUTHORITY)%`.
    Authority,
    /// `%PROTOCOL%`.
    Protocol,
    /// `%RESPONSE_CODE%`.
    Code,
    /// `%RESPONSE_CODE_DETAILS%`.
    Details,
    /// `%REQUESTED_SERVER_NAME%`.
    ServerName,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`: the address that the client connected to.
    Destination,
    /// `%UPSTREAM_CLUSTER%` or `%UPSTREAM_CLUSTER_RAW%`.
    Cluster,
    /// `%UPSTREAM_HOST%`.
    UpstreamHost,
    /// `%ROUTE_NAME%`.
    RouteName,
    /// `%FILTER_STATE(wasm.egress_verdict:PLAIN)%`.
    Verdict,
    /// `%FILTER_STATE(wasm.egress_reason:PLAIN)%`.
    Reason,
    /// `%FILTER_STATE(wasm.egress_host:PLAIN)%`.
    Host,
    /// `%ENVIRONMENT(POD_NAMESPACE)%`.
    Namespace,
    /// `%ENVIRONMENT(ISTIO_META_WORKLOAD_NAME)%`.
    Workload,
    /// `%ENVIRONMENT(POD_NAME)%`.
    Pod,
}

const COUNT: usize = Field::Pod as usize + 1;

impl Field {
    /// What a field of a JSON line is: the names of `istio/meshconfig.yaml`, which are Istio's own, and those of
    /// `envoy/envoy.yaml`.
    #[must_use]
    pub fn of_key(key: &str) -> Option<Field> {
        Some(match key {
            "start_time" => Field::Time,
            "method" => Field::Method,
            "authority" => Field::Authority,
            "protocol" => Field::Protocol,
            "response_code" | "code" => Field::Code,
            "response_code_details" | "details" => Field::Details,
            "requested_server_name" => Field::ServerName,
            "downstream_local_address" | "destination" => Field::Destination,
            "upstream_cluster" | "cluster" => Field::Cluster,
            "upstream_host" => Field::UpstreamHost,
            "route_name" => Field::RouteName,
            "egress_verdict" => Field::Verdict,
            "egress_reason" => Field::Reason,
            "egress_host" => Field::Host,
            "namespace" => Field::Namespace,
            "workload" => Field::Workload,
            "pod" => Field::Pod,
            _ => return None,
        })
    }

    /// What a command operator of a format string gives, such as `REQ(:AUTHORITY)`.
    #[must_use]
    pub fn of_operator(operator: &str) -> Option<Field> {
        let (name, argument) = match operator.split_once('(') {
            Some((name, rest)) => (name, rest.split(')').next().unwrap_or_default()),
            None => (operator.split(':').next().unwrap_or(operator), ""),
        };
        Some(match (name, argument) {
            ("START_TIME", "") => Field::Time,
            ("REQ", header) if header.eq_ignore_ascii_case(":method") => Field::Method,
            ("REQ", header) if header.eq_ignore_ascii_case(":authority") => Field::Authority,
            ("PROTOCOL", _) => Field::Protocol,
            ("RESPONSE_CODE", _) => Field::Code,
            ("RESPONSE_CODE_DETAILS", _) => Field::Details,
            ("REQUESTED_SERVER_NAME", _) => Field::ServerName,
            ("DOWNSTREAM_LOCAL_ADDRESS", _) => Field::Destination,
            ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", _) => Field::Cluster,
            ("UPSTREAM_HOST", _) => Field::UpstreamHost,
            ("ROUTE_NAME", _) => Field::RouteName,
            ("FILTER_STATE", "wasm.egress_verdict:PLAIN") => Field::Verdict,
            ("FILTER_STATE", "wasm.egress_reason:PLAIN") => Field::Reason,
            ("FILTER_STATE", "wasm.egress_host:PLAIN") => Field::Host,
            ("ENVIRONMENT", "POD_NAMESPACE") => Field::Namespace,
            ("ENVIRONMENT", "ISTIO_META_WORKLOAD_NAME") => Field::Workload,
            ("ENVIRONMENT", "POD_NAME") => Field::Pod,
            _ => return None,
        })
    }
}

/// The values of a line. What is absent, `-` or `null` is empty.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    values: [Cow<'a, str>; COUNT],
    /// A bit for each field that the line has, if only as `-`.
    present: u32,
}

impl<'a> Fields<'a> {
    /// The value.
    #[must_use]
    pub fn value(&self, field: Field) -> &str {
        self.values.get(field as usize).map_or("", |value| value)
    }

    /// Takes a value.
    pub fn set(&mut self, field: Field, value: Cow<'a, str>) {
        self.present |= 1 << field as u32;
        if let Some(slot) = self.values.get_mut(field as usize) {
            *slot = if value == "-" { Cow::Borrowed("") } else { value };
        }
    }

    /// Whether the line has the field, if only as `-`.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.present & 1 << field as u32 != 0
    }

    /// Whether these are the values of an access log line, and not of what an application logs as JSON: it says which
    /// cluster, and one more thing that only Envoy knows.
    #[must_use]
    pub fn is_of_access_log(&self) -> bool {
        let others = [Field::Details, Field::ServerName, Field::Destination, Field::RouteName, Field::Verdict];
        self.has(Field::Cluster) && others.into_iter().any(|field| self.has(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_operators_of_istio_and_of_the_filter() {
        for (operator, expected) in [
            ("START_TIME", Some(Field::Time)),
            ("START_TIME(%s)", None),
            ("REQ(:METHOD)", Some(Field::Method)),
            ("REQ(:authority):100", Some(Field::Authority)),
            ("REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", None),
            ("UPSTREAM_CLUSTER_RAW", Some(Field::Cluster)),
            ("FILTER_STATE(wasm.egress_host:PLAIN)", Some(Field::Host)),
            ("FILTER_STATE(wasm.egress_host)", None),
            ("ENVIRONMENT(POD_NAMESPACE)", Some(Field::Namespace)),
            ("ENVIRONMENT(HOME)", None),
            ("DURATION", None),
        ] {
            assert_eq!(Field::of_operator(operator), expected, "{operator}");
        }
    }
}
