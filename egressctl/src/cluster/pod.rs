//! Who a pod's sidecar is: what `overrides[].match` is compared with, found out as Istio's injector finds it out.

use egress_filter::config::KnownNode;

use super::Cluster;
use crate::document::Node;
use crate::failure::{Failure, Result};
use crate::object::Kind;

impl Cluster {
    /// The node that the sidecar of a pod runs as.
    ///
    /// # Errors
    ///
    /// There is no such pod; or as [`Cluster::list`].
    pub fn node_of_pod(&self, namespace: &str, pod: &str) -> Result<KnownNode> {
        match self.find(Kind::Pod, Some(namespace), pod)? {
            Some(document) => Ok(node(&document.root)),
            None => Err(Failure::new(format!(
                "context {}: there is no Pod {namespace}/{pod}; `kubectl get pods -n {namespace}` lists those that are there",
                self.context()
            ))),
        }
    }
}

fn node(pod: &Node) -> KnownNode {
    let text = |path: &[&str]| pod.within(path).and_then(Node::text).map(str::to_owned);
    let labels = pod.within(&["metadata", "labels"]).map(Node::fields).unwrap_or_default();
    KnownNode {
        namespace: text(&["metadata", "namespace"]),
        workload: named_by_injection(pod).or_else(|| named_by_owner(pod)).or_else(|| text(&["metadata", "name"])),
        labels: labels.iter().filter_map(|field| Some((field.key.clone(), field.value.text()?.to_owned()))).collect(),
    }
}

/// What the injector has written into the sidecar, a native one (an init container that goes on) included.
fn named_by_injection(pod: &Node) -> Option<String> {
    let containers = ["containers", "initContainers"].into_iter().filter_map(|field| pod.within(&["spec", field]));
    let mut proxies = containers.flat_map(Node::list).filter(|one| text_of(one, "name") == Some("istio-proxy"));
    let variables = proxies.next()?.get("env")?.list();
    let name = variables.iter().find(|one| text_of(one, "name") == Some("ISTIO_META_WORKLOAD_NAME"))?;
    text_of(name, "value").filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The injector's own rule: the name of what controls the pod, without what a ReplicaSet or a Job adds to it.
fn named_by_owner(pod: &Node) -> Option<String> {
    let owners = pod.within(&["metadata", "ownerReferences"])?.list();
    let is_controller = |owner: &&Node| owner.get("controller").is_some_and(|flag| flag.to_json() == "true");
    let owner = owners.iter().find(is_controller)?;
    let name = text_of(owner, "name")?;
    let label = |key| pod.within(&["metadata", "labels", key]).and_then(Node::text).filter(|text| !text.is_empty());
    let stem = match text_of(owner, "kind")? {
        "ReplicaSet" => ["pod-template-hash", "rollouts-pod-template-hash"]
            .into_iter()
            .find_map(|key| name.strip_suffix(label(key)?)?.strip_suffix('-')),
        "ReplicationController" => label("deploymentconfig"),
        // A CronJob's name and the minute: eight to ten digits.
        "Job" => name.rsplit_once('-').and_then(|(stem, time)| {
            ((8..=10).contains(&time.len()) && time.bytes().all(|byte| byte.is_ascii_digit())).then_some(stem)
        }),
        _ => None,
    };
    Some(stem.unwrap_or(name).to_owned())
}

fn text_of<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key).and_then(Node::text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn workload(metadata: Value, spec: Value) -> Option<String> {
        node(&Node::from(json!({"metadata": metadata, "spec": spec}))).workload
    }

    fn owned(kind: &str, name: &str, labels: Value) -> Option<String> {
        let owner = json!([{"kind": kind, "name": name, "controller": true}]);
        workload(json!({"name": "pod-x", "labels": labels, "ownerReferences": owner}), json!({}))
    }

    #[test]
    fn takes_namespace_and_labels_from_the_metadata() {
        let pod = json!({"metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web", "tier": "1"}}});
        let node = node(&Node::from(pod));
        assert_eq!(node.namespace.as_deref(), Some("shop"));
        assert_eq!(
            node.labels.into_iter().collect::<Vec<_>>(),
            [("app".to_owned(), "web".to_owned()), ("tier".to_owned(), "1".to_owned())]
        );
    }

    #[test]
    fn believes_what_the_injector_has_written() {
        let proxy = json!([{"name": "istio-proxy", "env": [{"name": "ISTIO_META_WORKLOAD_NAME", "value": "web"}]}]);
        let owner = json!([{"kind": "StatefulSet", "name": "other", "controller": true}]);
        let metadata = json!({"name": "web-0", "ownerReferences": owner});
        for field in ["containers", "initContainers"] {
            assert_eq!(workload(metadata.clone(), json!({field: proxy})).as_deref(), Some("web"), "{field}");
        }
    }

    #[test]
    fn takes_the_name_of_what_controls_the_pod() {
        let hash = json!({"pod-template-hash": "5d8f"});
        assert_eq!(owned("ReplicaSet", "web-5d8f", hash.clone()).as_deref(), Some("web"));
        assert_eq!(owned("ReplicaSet", "web-api", hash).as_deref(), Some("web-api"));
        let rollout = json!({"rollouts-pod-template-hash": "77"});
        assert_eq!(owned("ReplicaSet", "web-77", rollout).as_deref(), Some("web"));
        assert_eq!(owned("StatefulSet", "db", json!({})).as_deref(), Some("db"));
        assert_eq!(owned("Job", "nightly-28500120", json!({})).as_deref(), Some("nightly"));
        assert_eq!(owned("Job", "load-2024", json!({})).as_deref(), Some("load-2024"));
        assert_eq!(owned("ReplicationController", "web-3", json!({"deploymentconfig": "web"})).as_deref(), Some("web"));
    }

    #[test]
    fn takes_the_pod_s_own_name_where_nothing_controls_it() {
        let owner = json!([{"kind": "Node", "name": "n"}]);
        assert_eq!(workload(json!({"name": "alone", "ownerReferences": owner}), json!({})).as_deref(), Some("alone"));
    }
}
