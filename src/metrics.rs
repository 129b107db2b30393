//! Metric names and labels, and the bound on the labels that clients can make up.
//!
//! Envoy's metrics have no labels of their own. A name such as `egress_host=.=example.com;.;egress_requests_total` becomes
//! `egress_requests_total{egress_host="example.com"}` where a stats tag with the regex `(egress_host=\.=(.*?);\.;)` is
//! configured: Istio makes one of each of its `extraStatTags`. A metric lives as long as its VM, so what is defined here
//! must be bounded: by the registry, by closed enums, or by [`UnlistedHosts`].

use std::fmt::{self, Write};

use hashbrown::HashSet;

use crate::policy::{Reason, Verdict, WireProtocol};

/// The labels, as stats tags have to name them.
pub const LABELS: [&str; 7] = [
    "egress_host",
    "egress_protocol",
    "egress_verdict",
    "egress_reason",
    "egress_plugin",
    "egress_config",
    "egress_response_class",
];

/// The label of hosts that came after the table of unlisted hosts was full.
pub const OTHER: &str = "other";

/// A counter of decisions: [`requests`] or [`connections`].
pub type Decisions = fn(host: &str, protocol: WireProtocol, verdict: Verdict, reason: Reason) -> String;

/// Counts requests, when they are decided: labels host, protocol, verdict, reason.
#[must_use]
pub fn requests(host: &str, protocol: WireProtocol, verdict: Verdict, reason: Reason) -> String {
    decisions("egress_requests_total", host, protocol, verdict, reason)
}

/// Counts TLS and TCP connections, when they are decided, or when they end undecided: labels host, protocol, verdict,
/// reason.
#[must_use]
pub fn connections(host: &str, protocol: WireProtocol, verdict: Verdict, reason: Reason) -> String {
    decisions("egress_connections_total", host, protocol, verdict, reason)
}

fn decisions(metric: &str, host: &str, protocol: WireProtocol, verdict: Verdict, reason: Reason) -> String {
    let labels = [
        ("egress_host", host),
        ("egress_protocol", protocol.as_str()),
        ("egress_verdict", verdict.as_str()),
        ("egress_reason", reason.as_str()),
    ];
    name(metric, &labels)
}

/// The number of connections that were let through and have not ended: labels host, protocol.
#[must_use]
pub fn connections_active(host: &str, protocol: WireProtocol) -> String {
    traffic("egress_connections_active", host, protocol)
}

/// Counts the bytes that workloads sent out over connections: labels host, protocol.
#[must_use]
pub fn sent_bytes(host: &str, protocol: WireProtocol) -> String {
    traffic("egress_sent_bytes_total", host, protocol)
}

/// Counts the bytes that workloads received over connections: labels host, protocol.
#[must_use]
pub fn received_bytes(host: &str, protocol: WireProtocol) -> String {
    traffic("egress_received_bytes_total", host, protocol)
}

fn traffic(metric: &str, host: &str, protocol: WireProtocol) -> String {
    name(metric, &[("egress_host", host), ("egress_protocol", protocol.as_str())])
}

/// Counts responses: labels host and class (`2xx`; `0xx` where there was no response).
#[must_use]
pub fn responses(host: &str, class: &str) -> String {
    name("egress_responses_total", &[("egress_host", host), ("egress_response_class", class)])
}

/// Times responses, in milliseconds from the request's first byte to the response's last: label host.
#[must_use]
pub fn response_duration(host: &str) -> String {
    name("egress_response_duration_milliseconds", &[("egress_host", host)])
}

/// The number of distinct host patterns of a configuration: labels plugin and config.
#[must_use]
pub fn registry_hosts(plugin: &str, config: &str) -> String {
    name("egress_registry_hosts", &[("egress_plugin", plugin), ("egress_config", config)])
}

/// 1 for the configuration that runs, 0 for those that ran before: labels plugin and config.
#[must_use]
pub fn config_info(plugin: &str, config: &str) -> String {
    name("egress_config_info", &[("egress_plugin", plugin), ("egress_config", config)])
}

/// Counts configurations that were refused: label plugin.
#[must_use]
pub fn config_rejected(plugin: &str) -> String {
    name("egress_config_rejected_total", &[("egress_plugin", plugin)])
}

/// Counts decisions whose host is under [`OTHER`].
#[must_use]
pub fn unlisted_hosts_overflow() -> String {
    name("egress_unlisted_hosts_overflow_total", &[])
}

fn name(metric: &str, labels: &[(&str, &str)]) -> String {
    let mut name =
        String::with_capacity(metric.len() + labels.iter().map(|(l, v)| l.len() + v.len() + 6).sum::<usize>());
    for (label, value) in labels {
        name.push_str(label);
        name.push_str("=.=");
        name.push_str(value);
        name.push_str(";.;");
    }
    name.push_str(metric);
    name
}

/// Writes a label value: what is not `[a-z0-9.*:_/-]` or a bracket becomes `_`, upper case lower case.
#[must_use]
pub fn label(value: impl fmt::Display) -> String {
    struct Clean(String);
    impl Write for Clean {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0.extend(text.chars().map(|c| match c.to_ascii_lowercase() {
                c if c.is_ascii_alphanumeric() || ".*:_/-[]".contains(c) => c,
                _ => '_',
            }));
            Ok(())
        }
    }
    let mut clean = Clean(String::new());
    // Writing to a String does not fail.
    let _ = write!(clean, "{value}");
    clean.0
}

/// The hosts that no entry matches and that have a label of their own. One table serves a whole VM.
#[derive(Debug, Default)]
pub struct UnlistedHosts(HashSet<String>);

impl UnlistedHosts {
    /// Whether `host` may be a label: it is one already, or fewer than `limit` are.
    pub fn admit(&mut self, host: &str, limit: u32) -> bool {
        if self.0.contains(host) {
            return true;
        }
        let admitted = self.0.len() < limit as usize;
        if admitted {
            self.0.insert(host.to_owned());
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_labels_before_the_name() {
        assert_eq!(
            requests("*.a.com", WireProtocol::Http, Verdict::WouldDeny, Reason::NotListed),
            "egress_host=.=*.a.com;.;egress_protocol=.=http;.;egress_verdict=.=would_deny;.;\
             egress_reason=.=not_listed;.;egress_requests_total"
        );
        assert_eq!(
            sent_bytes("10.0.0.1:5432", WireProtocol::Tcp),
            "egress_host=.=10.0.0.1:5432;.;egress_protocol=.=tcp;.;egress_sent_bytes_total"
        );
        assert_eq!(unlisted_hosts_overflow(), "egress_unlisted_hosts_overflow_total");
    }

    #[test]
    fn cleans_label_values() {
        assert_eq!(label("[2001:DB8::1]:443"), "[2001:db8::1]:443");
        assert_eq!(label("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(label("a b;.;c=\"ü\n"), "a_b_._c____");
    }

    #[test]
    fn admits_as_many_hosts_as_the_limit_says() {
        let mut hosts = UnlistedHosts::default();
        assert!(hosts.admit("a", 2));
        assert!(hosts.admit("b", 2));
        assert!(!hosts.admit("c", 2));
        assert!(hosts.admit("a", 2));
        assert!(hosts.admit("c", 3));
        assert!(!UnlistedHosts::default().admit("a", 0));
    }
}
