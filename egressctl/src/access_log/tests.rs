//! Lines that Envoy 1.40.0 wrote, of the same 51 requests and connections, in five formats. What they are is in
//! `tests/data/access_log/README.md`.

use std::path::{Path, PathBuf};

use super::line::{Format, Reader};
use super::scan::Origin;
use super::{LoggedCall, Skip};

const CUSTOM: &str = "%START_TIME% ns=%ENVIRONMENT(POD_NAMESPACE)% wl=%ENVIRONMENT(ISTIO_META_WORKLOAD_NAME)% %REQ(:METHOD)% \
    host=\"%REQ(:AUTHORITY)%\" sni=%REQUESTED_SERVER_NAME% dst=%DOWNSTREAM_LOCAL_ADDRESS% code=%RESPONSE_CODE% \
    details=%RESPONSE_CODE_DETAILS% cluster=%UPSTREAM_CLUSTER% route=%ROUTE_NAME% ua=\"%REQ(USER-AGENT)%\" \
    verdict=%FILTER_STATE(wasm.egress_verdict:PLAIN)% reason=%FILTER_STATE(wasm.egress_reason:PLAIN)% \
    egress_host=%FILTER_STATE(wasm.egress_host:PLAIN)%\\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/access_log")
}

fn calls(file: &str, format: Option<&str>) -> Vec<Result<LoggedCall, Skip>> {
    let reader = Reader::new(format.map(|format| Format::parse(format).unwrap()));
    let text = std::fs::read_to_string(folder().join(file)).unwrap();
    let read = |line: &str| {
        let origin = Origin::default();
        reader.read(line.as_bytes(), &origin, |evidence, _| LoggedCall::of(evidence)).and_then(|call| call)
    };
    text.lines().map(read).collect()
}

fn summary(call: &Result<LoggedCall, Skip>) -> String {
    match call {
        Err(skip) => format!("{skip:?}"),
        Ok(call) => {
            let asked = &call.call;
            let port = asked.connect_port.or(asked.port).unwrap_or_default();
            // Ports of listeners were any that were free.
            let port = if port > 30000 { "LISTENER".to_owned() } else { port.to_string() };
            format!(
                "{}/{} {} {} {}:{port} {:?} {:?}{}{}",
                call.namespace,
                call.workload,
                asked.plugin.root_id(),
                asked.protocol.as_str(),
                call.host(),
                asked.route,
                call.passage,
                call.reason.map_or_else(String::new, |reason| format!(" {}", reason.as_str())),
                if call.may_have_name { " (may have a name)" } else { "" },
            )
        }
    }
}

#[test]
fn reads_what_a_real_envoy_wrote_in_the_format_of_the_manifests() {
    let actual: Vec<String> = calls("egress-json.log", None).iter().map(summary).collect();
    let actual = actual.join("\n") + "\n";
    let path = folder().join("egress-json.expected");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &actual).unwrap();
    }
    assert_eq!(actual, std::fs::read_to_string(path).unwrap());
}

#[test]
fn reads_the_same_from_a_text_format_with_the_same_values() {
    let json = calls("egress-json.log", None);
    let text = calls("custom-text.log", Some(CUSTOM));
    for (position, (json, text)) in json.iter().zip(&text).enumerate() {
        assert_eq!(json, text, "line {}", position + 1);
    }
    assert_eq!(json.len(), 51);
    assert_eq!(text.len(), 51);
}

#[test]
fn reads_the_same_from_both_of_istio_s_formats() {
    assert_eq!(calls("istio-json.log", None), calls("istio-text.log", None));
}

#[test]
fn reads_of_istio_s_formats_what_the_filter_did_to_requests_from_the_response_code_details() {
    let (ours, istio) = (calls("egress-json.log", None), calls("istio-text.log", None));
    let requests =
        ours.iter().zip(&istio).filter_map(|(ours, istio)| Some((ours.as_ref().ok()?, istio.as_ref().ok()?)));
    let mut compared = 0;
    for (ours, istio) in requests.filter(|(ours, _)| ours.call.plugin == crate::configuration::Plugin::Http) {
        assert_eq!((&ours.call, ours.passage), (&istio.call, istio.passage));
        compared += 1;
    }
    assert_eq!(compared, 15);
}

#[test]
fn reads_of_envoy_s_own_format_whom_a_request_names_and_whether_it_was_denied() {
    let (ours, envoy) = (calls("egress-json.log", None), calls("envoy-text.log", None));
    let mut compared = 0;
    for (position, (ours, envoy)) in ours.iter().zip(&envoy).enumerate() {
        if let (Ok(ours), Ok(envoy)) = (ours, envoy)
            && ours.call.plugin == crate::configuration::Plugin::Http
        {
            assert_eq!((&ours.call.target, envoy.call.plugin), (&envoy.call.target, ours.call.plugin));
            // Who answered with the 502 of block_all cannot be told without the route.
            let is_blocked = ours.is_blocked_by_mesh && ours.reason.is_none();
            assert!(is_blocked || ours.passage == envoy.passage, "line {}", position + 1);
            compared += 1;
        }
    }
    assert_eq!(compared, 15);
}

#[test]
fn reads_lines_that_collectors_and_kubectl_have_wrapped() {
    let line = std::fs::read_to_string(folder().join("egress-json.log")).unwrap().lines().nth(1).unwrap().to_owned();
    let text = std::fs::read_to_string(folder().join("istio-text.log")).unwrap().lines().nth(1).unwrap().to_owned();
    let quoted = |text: &str| serde_json::to_string(&format!("{text}\n")).unwrap();
    let pod = r#"{"namespace_name":"bank","pod_name":"pay-7d4b9c6f5-x2x8k","labels":{"app":"x"}}"#;
    let vector = r#"{"pod_namespace":"bank","pod_name":"pay-7d4b9c6f5-x2x8k","pod_labels":{"app":"x"}}"#;
    for (wrapped, caller) in [
        (line.clone(), "shop/cart"),
        (format!("[pod/pay-7d4b9c6f5-x2x8k/istio-proxy] {line}"), "shop/cart"),
        (format!("[pod/pay-7d4b9c6f5-x2x8k/istio-proxy] {text}"), "unknown/pay"),
        (format!("2026-11-25T18:32:31.5Z stdout F {text}"), "unknown/unknown"),
        (
            format!("{{\"log\":{},\"stream\":\"stdout\",\"time\":\"2026-11-25T18:32:31.5Z\"}}", quoted(&text)),
            "unknown/unknown",
        ),
        (format!("{{\"log\":{},\"kubernetes\":{pod}}}", quoted(&text)), "bank/pay"),
        (format!("{{\"kubernetes\":{vector},\"message\":{}}}", quoted(&line)), "shop/cart"),
        (format!("{{\"kubernetes\":{vector},\"message\":{}}}", quoted(&text)), "bank/pay"),
        (format!("{{\"log_processed\":{line},\"kubernetes\":{pod}}}"), "shop/cart"),
    ] {
        let read = Reader::new(None).read(wrapped.as_bytes(), &Origin::default(), |evidence, time| {
            assert!(time.starts_with("2026-11-25T18:32:31.5"), "{time}: {wrapped}");
            let call = LoggedCall::of(evidence).unwrap();
            (format!("{}/{}", call.namespace, call.workload), call.host())
        });
        assert_eq!(read, Ok((caller.to_owned(), "news.example".to_owned())), "{wrapped}");
    }
}

#[test]
fn prints_nothing_of_a_log_that_a_terminal_obeys() {
    let line = r#"{"upstream_cluster":"PassthroughCluster","route_name":"x","method":"GET","authority":"\u001b[2Ja.example","namespace":"sh\u001b[2Jop","workload":"a\nb"}"#;
    let read = Reader::new(None).read(line.as_bytes(), &Origin::default(), |evidence, _| LoggedCall::of(evidence));
    let call = read.and_then(|call| call).unwrap();
    let printed = (call.namespace.as_str(), call.workload.as_str(), call.host());
    assert_eq!(printed, ("sh?[2Jop", "a?b", "invalid".to_owned()));
}

#[test]
fn says_of_other_lines_what_they_are() {
    for (line, expected) in [
        ("", Skip::Blank),
        ("  \r", Skip::Blank),
        ("2026-11-25T18:32:31.504Z\tinfo\tcache\tgenerated new workload certificate", Skip::Foreign),
        (r#"{"level":"info","method":"GET","authority":"a.example","message":"served"}"#, Skip::Foreign),
        (r#"{"log":"GET / 200\n","stream":"stdout"}"#, Skip::Foreign),
        ("{\"authority\":", Skip::Foreign),
        ("2026-11-25T18:32:31.5Z stdout P {\"authority\":\"a", Skip::Split),
        (
            r#"{"upstream_cluster":"inbound|8080||","route_name":"default","method":"GET","authority":"a"}"#,
            Skip::Inbound,
        ),
        (r#"{"upstream_cluster":"PassthroughCluster","route_name":null,"method":null}"#, Skip::NoDestination),
        (
            r#"{"upstream_cluster":null,"egress_verdict":"undecided","egress_reason":"closed_early","egress_host":"192.0.2.1:443"}"#,
            Skip::ClosedEarly,
        ),
        (
            r#"{"upstream_cluster":"PassthroughCluster","downstream_local_address":"192.0.2.1:443","egress_verdict":"denied","egress_reason":"expired","egress_host":"*.a.example"}"#,
            Skip::OnlyPattern,
        ),
    ] {
        let read = Reader::new(None).read(line.as_bytes(), &Origin::default(), |evidence, _| LoggedCall::of(evidence));
        assert_eq!(read.and_then(|call| call).map(|call| call.host()), Err(expected), "{line}");
    }
}
