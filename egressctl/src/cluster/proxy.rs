//! Which proxy leads to the API server: the kubeconfig's, or the environment's, as kubectl reads it.
//!
//! kube-rs compares `NO_PROXY` with the proxy's address and not with the server's, so this is decided here.

use std::net::IpAddr;

use egress_filter::address::Cidr;
use http::Uri;

use crate::failure::{Failure, Result};

/// The proxy for a server. What the kubeconfig names counts always; `HTTPS_PROXY` for servers with TLS that are not this
/// machine's and not in `NO_PROXY`. `variable` reads the environment.
///
/// # Errors
///
/// An address of a proxy that is no URL.
pub(super) fn of(
    server: &Uri,
    in_kubeconfig: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>> {
    let either = |name: &str| variable(name).or_else(|| variable(&name.to_lowercase())).filter(|text| !text.is_empty());
    let named =
        in_kubeconfig.filter(|text| !text.is_empty()).map(|text| ("the kubeconfig's proxy-url", text.to_owned()));
    let (whose, text) = match named {
        Some(named) => named,
        None => {
            let is_meant =
                server.scheme_str() == Some("https") && !is_direct(server, &either("NO_PROXY").unwrap_or_default());
            match either("HTTPS_PROXY").filter(|_| is_meant) {
                Some(text) => ("HTTPS_PROXY", text),
                None => return Ok(None),
            }
        }
    };
    let with_scheme = if text.contains("://") { text.clone() } else { format!("http://{text}") };
    match with_scheme.parse() {
        Ok(proxy) => Ok(Some(proxy)),
        Err(_) => Err(Failure::new(format!("{whose}: not a URL; use a form such as http://proxy.example:3128"))),
    }
}

/// Whether a server is reached without a proxy: it is this machine, or `NO_PROXY` has its name, a domain above it, its
/// address or range, any of them with its port, or `*`.
fn is_direct(server: &Uri, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_lowercase();
    let address = host.parse::<IpAddr>().ok();
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    let port = server.port_u16().unwrap_or(443).to_string();
    no_proxy.split(',').map(|one| one.trim().to_lowercase()).filter(|one| !one.is_empty()).any(|one| {
        if one == "*" {
            return true;
        }
        if let (Some(address), Ok(range)) = (address, one.parse::<Cidr>()) {
            return range.contains(address);
        }
        let one = match one.rsplit_once(':') {
            Some((one, own)) if own == port => one,
            _ => one.as_str(),
        };
        let domain = one.trim_matches(['[', ']']).trim_start_matches("*.").trim_start_matches('.');
        host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, in_kubeconfig: Option<&str>, environment: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| environment.iter().find(|(own, _)| *own == name).map(|(_, text)| (*text).to_owned());
        let found = of(&server.parse().unwrap(), in_kubeconfig, variable).unwrap();
        found.map(|proxy| proxy.to_string().trim_end_matches('/').to_owned())
    }

    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://proxy.corp.example:3128");

    #[test]
    fn takes_the_kubeconfig_s_proxy_before_the_environment_s() {
        let server = "https://k8s.corp.example:6443";
        let own = Some("socks5://127.0.0.1:1080");
        assert_eq!(proxy(server, own, &[PROXY, ("NO_PROXY", "*")]).as_deref(), Some("socks5://127.0.0.1:1080"));
        assert_eq!(proxy(server, None, &[PROXY]).as_deref(), Some("http://proxy.corp.example:3128"));
        assert_eq!(proxy(server, None, &[("https_proxy", "proxy:3128")]).as_deref(), Some("http://proxy:3128"));
        assert_eq!(proxy(server, None, &[("HTTPS_PROXY", "")]), None);
        assert_eq!(proxy("http://k8s.corp.example", None, &[PROXY]), None);
    }

    #[test]
    fn goes_straight_to_what_no_proxy_has() {
        for (server, no_proxy, is_direct) in [
            ("https://k8s.corp.example:6443", "other.example, corp.example", true),
            ("https://k8s.corp.example:6443", ".corp.example,", true),
            ("https://K8S.corp.example:6443", "*.Corp.example", true),
            ("https://k8s.corp.example:6443", "k8s.corp.example:6443", true),
            ("https://k8s.corp.example:6443", "k8s.corp.example:443", false),
            ("https://k8s.corp.example", "k8s.corp.example:443", true),
            ("https://k8s.corp.example:6443", "rp.example", false),
            // The proxy's own name decides nothing.
            ("https://k8s.example:6443", "proxy.corp.example", false),
            ("https://10.1.2.3:6443", "10.0.0.0/8", true),
            ("https://10.1.2.3:6443", "10.1.2.3", true),
            ("https://11.1.2.3:6443", "10.0.0.0/8", false),
            ("https://[2001:db8::1]:6443", "2001:db8::/32", true),
            ("https://k8s.example", "*", true),
            ("https://127.0.0.1:6443", "", true),
            ("https://localhost:6443", "", true),
            ("https://k8s.example", "", false),
        ] {
            assert_eq!(
                proxy(server, None, &[PROXY, ("NO_PROXY", no_proxy)]).is_none(),
                is_direct,
                "{server} {no_proxy}"
            );
        }
    }

    #[test]
    fn says_whose_proxy_is_no_url() {
        let error = of(&"https://k8s.example".parse().unwrap(), Some("http://a b"), |_| None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kubeconfig's proxy-url: not a URL; use a form such as http://proxy.example:3128"
        );
    }
}
