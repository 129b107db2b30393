//! What stands around a line: `kubectl logs --prefix` and `--timestamps`, container runtimes' files, and their paths.

use std::path::Path;

/// What is known of a line from around it. Empty is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around<'a> {
    /// The pod's namespace.
    pub namespace: &'a str,
    /// The pod.
    pub pod: &'a str,
    /// When the line was written.
    pub time: &'a str,
    /// Whether this is the beginning of a line that goes on in the next.
    pub is_split: bool,
}

/// Takes off what `kubectl logs` and container runtimes put before a line.
#[must_use]
pub fn unwrap(line: &str) -> (Around<'_>, &str) {
    let mut around = Around::default();
    let mut rest = line;
    // `[pod/cart-7d4b9c6f5-x2x8k/istio-proxy] `
    if let Some((pod, after)) = rest.strip_prefix("[pod/").and_then(|inner| inner.split_once("] ")) {
        around.pod = pod.split('/').next().unwrap_or_default();
        rest = after;
    }
    if let Some((time, after)) = rest.split_once(' ')
        && is_time(time)
        && has_a_line(after)
    {
        (around.time, rest) = (time, after);
        // `stdout F `
        let stream = rest.strip_prefix("stdout ").or_else(|| rest.strip_prefix("stderr "));
        if let Some((tag, after)) = stream.and_then(|tagged| tagged.split_once(' ')) {
            around.is_split = tag.starts_with('P');
            rest = after;
        }
    }
    (around, rest)
}

/// A format may begin with the time itself; then it is not for taking off.
fn has_a_line(rest: &str) -> bool {
    ["{", "[", "stdout ", "stderr "].iter().any(|start| rest.starts_with(start))
}

/// `2026-11-25T18:32:31`, and whatever fraction and zone.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 20 && bytes.first().is_some_and(u8::is_ascii_digit) && bytes.get(10) == Some(&b'T')
}

/// The namespace and pod that a file's path tells: `/var/log/pods/NAMESPACE_POD_UID/CONTAINER/0.log` or
/// `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log`.
#[must_use]
pub fn of_path(path: &Path) -> (String, String) {
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name).and_then(std::ffi::OsStr::to_str).unwrap_or_default().to_owned()
    };
    let file = name(Some(path));
    let folder = path.parent();
    if name(folder) == "containers"
        && let Some((pod, rest)) = file.split_once('_')
        && let Some((namespace, _)) = rest.split_once('_')
    {
        return (namespace.to_owned(), pod.to_owned());
    }
    let of_pod = folder.and_then(Path::parent);
    if name(of_pod.and_then(Path::parent)) == "pods" {
        let text = name(of_pod);
        let mut parts = text.split('_');
        if let (Some(namespace), Some(pod), Some(_)) = (parts.next(), parts.next(), parts.next()) {
            return (namespace.to_owned(), pod.to_owned());
        }
    }
    Default::default()
}

/// The workload that a pod belongs to, if its name has the form that a Deployment gives: `NAME-HASH-5CHARS`. Otherwise the
/// pod itself.
#[must_use]
pub fn workload_of(pod: &str) -> &str {
    let split = || {
        let (rest, suffix) = pod.rsplit_once('-')?;
        let (name, hash) = rest.rsplit_once('-')?;
        let fits = suffix.len() == 5 && (5..=10).contains(&hash.len()) && is_random(suffix) && is_random(hash);
        (fits && !name.is_empty()).then_some(name)
    };
    split().unwrap_or(pod)
}

/// Kubernetes makes such parts of these characters alone, so that they spell no words.
fn is_random(text: &str) -> bool {
    text.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_off_what_kubectl_and_container_runtimes_put_before_a_line() {
        for (line, namespace, pod, time, expected) in [
            ("{\"a\":1}", "", "", "", "{\"a\":1}"),
            ("[pod/cart-7d4b9c6f5-x2x8k/istio-proxy] {}", "", "cart-7d4b9c6f5-x2x8k", "", "{}"),
            ("2026-11-25T18:32:31.5Z [x] y", "", "", "2026-11-25T18:32:31.5Z", "[x] y"),
            ("[pod/a/istio-proxy] 2026-11-25T18:32:31.5Z {}", "", "a", "2026-11-25T18:32:31.5Z", "{}"),
            ("2026-11-25T18:32:31.5+01:00 stdout F {}", "", "", "2026-11-25T18:32:31.5+01:00", "{}"),
            ("[2026-11-25T18:32:31.5Z] \"GET / HTTP/1.1\"", "", "", "", "[2026-11-25T18:32:31.5Z] \"GET / HTTP/1.1\""),
            ("2026-11-25T18:32:31.5Z ns=shop", "", "", "", "2026-11-25T18:32:31.5Z ns=shop"),
        ] {
            let (around, rest) = unwrap(line);
            assert_eq!((around.namespace, around.pod, around.time, rest), (namespace, pod, time, expected), "{line}");
            assert!(!around.is_split);
        }
        assert!(unwrap("2026-11-25T18:32:31.5Z stdout P {").0.is_split);
    }

    #[test]
    fn reads_namespace_and_pod_from_the_paths_of_a_node() {
        for (path, namespace, pod) in [
            ("/var/log/pods/shop_cart-7d4b9c6f5-x2x8k_6e1f/istio-proxy/0.log", "shop", "cart-7d4b9c6f5-x2x8k"),
            ("/var/log/containers/cart-0_shop_istio-proxy-0a1b.log", "shop", "cart-0"),
            ("shop/cart.log", "", ""),
        ] {
            assert_eq!(of_path(Path::new(path)), (namespace.to_owned(), pod.to_owned()), "{path}");
        }
    }

    #[test]
    fn names_the_deployment_of_a_pod_and_leaves_other_names_as_they_are() {
        for (pod, workload) in [
            ("cart-7d4b9c6f5-x2x8k", "cart"),
            ("cart-api-7d4b9c6f5-x2x8k", "cart-api"),
            ("db-0", "db-0"),
            ("my-proxy-agent", "my-proxy-agent"),
            ("7d4b9c6f5-x2x8k", "7d4b9c6f5-x2x8k"),
        ] {
            assert_eq!(workload_of(pod), workload);
        }
    }
}
