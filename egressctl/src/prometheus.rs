//! The filter's metrics, as a Prometheus has them: what was denied, and what was used, over some time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::access_log::{Evidence, Kind, LoggedCall, Seen, Skip, UNKNOWN, count};
use crate::failure::{Failure, Result};
use crate::time::Time;
use egress_filter::policy::WireProtocol;

/// Which Prometheus, and what to ask it for.
#[derive(clap::Args, Clone, Debug)]
pub struct PrometheusArgs {
    /// Ask this Prometheus instead of reading logs
    #[arg(long, value_name = "URL")]
    prometheus: Option<String>,
    /// How far back to ask Prometheus, such as 12h or 7d
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = duration, requires = "prometheus")]
    since: Since,
    /// The label that has the namespace
    #[arg(long, value_name = "LABEL", default_value = "namespace", value_parser = label, requires = "prometheus")]
    namespace_label: String,
    /// The label that has the workload; where there is none, the label pod is taken
    #[arg(long, value_name = "LABEL", default_value = "workload", value_parser = label, requires = "prometheus")]
    workload_label: String,
    /// A file with the bearer token that this Prometheus asks for
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    bearer_token_file: Option<std::path::PathBuf>,
}

/// A duration in seconds.
#[derive(Clone, Copy, Debug)]
struct Since(i64);

fn duration(text: &str) -> std::result::Result<Since, String> {
    let invalid = || "not a duration; use a form such as 30m, 12h or 7d".to_owned();
    let unit = text.chars().last().ok_or_else(invalid)?;
    let number: i64 = text.strip_suffix(unit).and_then(|digits| digits.parse().ok()).ok_or_else(invalid)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        'w' => 7 * 86400,
        _ => return Err(invalid()),
    };
    let least = 1;
    // Ten years: more than any Prometheus keeps.
    let most = 3650 * 86400;
    number.checked_mul(seconds).filter(|total| (least..=most).contains(total)).map(Since).ok_or_else(invalid)
}

fn label(text: &str) -> std::result::Result<String, String> {
    let is_label = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.is_empty() || !text.chars().all(is_label) || text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("not the name of a label: letters, digits and _".to_owned());
    }
    Ok(text.to_owned())
}

/// What one pattern of the registry was used.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The callers' namespace.
    pub namespace: String,
    /// The pattern, in normal form.
    pub host: String,
    /// How often and when.
    pub seen: Seen,
}

/// One series, and what is known of it in the time asked for.
struct Series {
    labels: BTreeMap<String, String>,
    seen: Seen,
}

/// The two counters: of requests and of connections.
const METRICS: [(&str, Kind); 2] =
    [("egress_requests_total", Kind::Request), ("egress_connections_total", Kind::Connection)];

/// How many steps the time is divided into to find out when something was seen.
const STEPS: i64 = 200;

/// How long to wait for an answer: longer than Prometheus itself works on a query by default.
const PATIENCE: Duration = Duration::from_secs(150);

/// The longest answer, in bytes.
const MOST: u64 = 256 << 20;

impl PrometheusArgs {
    /// Whether Prometheus is to be asked at all.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.prometheus.is_some()
    }

    /// Hands over every call that no entry allowed, and returns what to tell besides.
    ///
    /// # Errors
    ///
    /// Prometheus does not answer, or not as it should.
    pub fn calls(
        &self,
        now: Time,
        namespace: Option<&str>,
        take: &mut dyn FnMut(&LoggedCall, Seen) -> std::result::Result<(), Skip>,
    ) -> Result<Vec<String>> {
        let (mut hidden, mut skipped, mut any) = (0, 0, false);
        for (metric, kind) in METRICS {
            let filter = "egress_reason!~\"listed|mesh_internal|mesh_registry|closed_early\"";
            for series in self.series(metric, filter, now)? {
                any = true;
                let label = |key: &str| series.labels.get(key).map_or("", String::as_str);
                if label("egress_host") == "other" {
                    hidden += series.seen.calls;
                    continue;
                }
                match self.call(&series, kind, namespace) {
                    Ok(call) => {
                        if take(&call, series.seen).is_err() {
                            skipped += series.seen.calls;
                        }
                    }
                    Err(_) => skipped += series.seen.calls,
                }
            }
        }
        if !any {
            self.complain_if_nothing_is_there(now)?;
        }
        let mut notes = Vec::new();
        if hidden > 0 {
            notes.push(format!(
                "the hosts of {} are hidden in \"other\": raise metrics.unlistedHosts, or read the access logs",
                count(hidden, "call")
            ));
        }
        if skipped > 0 {
            notes.push(format!(
                "{} matched an entry's wildcard or CIDR, and metrics have no more than that: read the access logs",
                count(skipped, "call")
            ));
        }
        Ok(notes)
    }

    /// What entries allowed.
    ///
    /// # Errors
    ///
    /// Prometheus does not answer, or not as it should.
    pub fn listed(&self, now: Time) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (metric, _) in METRICS {
            for series in self.series(metric, "egress_reason=\"listed\"", now)? {
                let label = |key: &str| series.labels.get(key).cloned().unwrap_or_default();
                listed.push(Listed {
                    namespace: label(&self.namespace_label),
                    host: label("egress_host"),
                    seen: series.seen,
                });
            }
        }
        if listed.is_empty() {
            self.complain_if_nothing_is_there(now)?;
        }
        Ok(listed)
    }

    /// Metrics have neither port nor address of what has a name; the usual port is taken.
    fn call(&self, series: &Series, kind: Kind, namespace: Option<&str>) -> std::result::Result<LoggedCall, Skip> {
        let label = |key: &str| series.labels.get(key).map_or("", String::as_str);
        let host = label("egress_host");
        if host.contains('/') || host.contains('*') {
            return Err(Skip::OnlyPattern);
        }
        let or_unknown = |text: &str, other: Option<&str>| {
            if text.is_empty() { other.unwrap_or(UNKNOWN).to_owned() } else { text.to_owned() }
        };
        let workload = match label(&self.workload_label) {
            "" => crate::access_log::workload_of(label("pod")),
            workload => workload,
        };
        let (namespace, workload) = (or_unknown(label(&self.namespace_label), namespace), or_unknown(workload, None));
        let is_address = host.parse::<std::net::SocketAddr>().is_ok();
        let reason = label("egress_reason");
        let evidence = Evidence {
            kind,
            namespace: &namespace,
            workload: &workload,
            authority: if kind == Kind::Request && reason != "invalid_name" { host } else { "" },
            server_name: "",
            destination: if is_address { host } else { "" },
            cluster: if reason == "mesh_denied" { "BlackHoleCluster" } else { "PassthroughCluster" },
            route_name: "",
            verdict: label("egress_verdict"),
            reason,
            host,
        };
        let mut call = LoggedCall::of(&evidence)?;
        if label("egress_protocol") == "http" && kind == Kind::Connection && call.is_port_assumed {
            call.call.protocol = WireProtocol::Http;
            call.call.port = Some(crate::access_log::HTTP_PORT);
        }
        Ok(call)
    }

    /// How often each series counted, and when. `increase` does not see a series begin, so what was not there before counts
    /// as far as it came.
    fn series(&self, metric: &str, filter: &str, now: Time) -> Result<Vec<Series>> {
        let Since(since) = self.since;
        let labels = format!(
            "{}, {}, pod, egress_host, egress_protocol, egress_verdict, egress_reason",
            self.namespace_label, self.workload_label
        );
        let one = format!("{metric}{{{filter}}}");
        let counted = format!(
            "sum by ({labels}) ((increase({one}[{since}s]) and {one} offset {since}s) or \
             (max_over_time({one}[{since}s]) unless {one} offset {since}s))"
        );
        let instant = self.ask("query", &[("query", &counted), ("time", &now.0.to_string())])?;
        let step = (since / STEPS).max(1);
        let start = now.0 - since;
        let over_time = self.ask(
            "query_range",
            &[
                ("query", &format!("sum by ({labels}) ({one})")),
                ("start", &start.to_string()),
                ("end", &now.0.to_string()),
                ("step", &step.to_string()),
            ],
        )?;
        let mut times = BTreeMap::new();
        for result in over_time {
            times.insert(result.metric.clone(), seen_in(&result.values, start, step));
        }
        let mut all = Vec::new();
        for result in instant {
            let value = result.value.as_ref().and_then(|(_, text)| text.parse::<f64>().ok()).unwrap_or_default();
            // A counter of calls: far below what a float holds exactly, and never negative.
            let calls = value.round().max(0.0) as u64;
            if calls > 0 {
                let (first, last) = times.get(&result.metric).copied().unwrap_or_default();
                all.push(Series { labels: result.metric, seen: Seen { calls, first, last } });
            }
        }
        Ok(all)
    }

    /// An empty answer may mean that nothing was denied, or that nobody scrapes the filter.
    fn complain_if_nothing_is_there(&self, now: Time) -> Result<()> {
        let Since(since) = self.since;
        let names: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
        let query = format!("count(last_over_time({{__name__=~\"{}\"}}[{since}s]))", names.join("|"));
        if !self.ask("query", &[("query", &query), ("time", &now.0.to_string())])?.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{}: has no series {}; see docs/metrics.md for how Prometheus gets them, or ask further back with --since",
            self.url(),
            names.join(" or ")
        )))
    }

    fn url(&self) -> &str {
        self.prometheus.as_deref().unwrap_or_default().trim_end_matches('/')
    }

    fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Vec<Sample>> {
        let url = self.url();
        let fail = |problem: String| Failure::new(format!("{url}: {problem}"));
        // The authorities of this machine: an inner Prometheus has a certificate of an inner one.
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let agent = ureq::Agent::new_with_config(config.tls_config(tls).build());
        let mut request = agent.get(format!("{url}/api/v1/{what}"));
        if let Some(path) = &self.bearer_token_file {
            let token = std::fs::read_to_string(path);
            let token = token.map_err(|error| Failure::new(format!("{}: cannot be read: {error}", path.display())))?;
            request = request.header("Authorization", format!("Bearer {}", token.trim()));
        }
        for (key, value) in parameters {
            request = request.query(key, value);
        }
        let mut response = request.call().map_err(|error| {
            fail(format!(
                "cannot be asked: {error}; give the URL that leads to Prometheus, such as http://localhost:9090"
            ))
        })?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(MOST).read_to_string();
        let text = text.map_err(|error| fail(format!("the answer cannot be read: {error}")))?;
        match serde_json::from_str::<Answer>(&text) {
            Ok(Answer { status, data: Some(data), .. }) if status == "success" => Ok(data.result),
            Ok(Answer { error: Some(error), .. }) => Err(fail(format!("Prometheus says: {error}"))),
            _ if !status.is_success() => Err(fail(format!("answers {status} to /api/v1/{what}; is this Prometheus?"))),
            _ => Err(fail(format!("the answer to /api/v1/{what} is not one of Prometheus; is this its URL?"))),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// When a counter first and last grew, to a step.
fn seen_in(values: &[(f64, String)], start: i64, step: i64) -> (Option<Time>, Option<Time>) {
    let (mut first, mut last, mut before) = (None, None, None);
    for (at, text) in values {
        let Ok(value) = text.parse::<f64>() else {
            continue;
        };
        let at = *at as i64;
        let has_grown = match before {
            // It was there when the time began; what it counted before does not count.
            None => value > 0.0 && at >= start + step,
            Some(before) => value > before,
        };
        if has_grown {
            first = first.or(Some(Time(at)));
            last = Some(Time(at));
        }
        before = Some(value);
    }
    (first, last)
}
