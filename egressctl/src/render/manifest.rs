//! The objects around a plugin configuration: a kustomize patch, or all that `kubectl apply` needs.
//!
//! The objects are those of `istio/base`, which are part of this program.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::document;
use crate::failure::{Failure, Result};

/// The WasmPlugin of requests, as kustomize takes it.
const EGRESS_HTTP: &str = include_str!("../../../istio/base/egress-http.yaml");
/// The WasmPlugin of connections and the EnvoyFilter that puts it in its place.
const EGRESS_TCP: &str = include_str!("../../../istio/base/egress-tcp.yaml");

/// Istio's version, as far as it matters: `1.30` of `1.30.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IstioVersion {
    major: u32,
    minor: u32,
}

/// From this version on Istio serves a WasmPlugin as the TrafficExtension that it is translated to.
const FIRST_WITH_TRAFFIC_EXTENSIONS: IstioVersion = IstioVersion { major: 1, minor: 30 };

impl FromStr for IstioVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> std::result::Result<Self, InvalidVersion> {
        let mut parts = text.split('.');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or(InvalidVersion);
        Ok(IstioVersion { major: number()?, minor: number()? })
    }
}

impl fmt::Display for IstioVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Why a text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVersion;

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a version of Istio; use a form such as 1.30 or 1.29.1")
    }
}

impl std::error::Error for InvalidVersion {}

/// Where and how the plugins are installed.
#[derive(Debug)]
pub struct Installation<'a> {
    /// The namespace of all objects.
    pub namespace: &'a str,
    /// Where the module comes from.
    pub url: &'a str,
    /// Which Istio serves it.
    pub istio: IstioVersion,
}

/// The patch that stands in for `plugin-config.yaml` of an installation by kustomize.
#[must_use]
pub fn patch(config: Value) -> Value {
    json!({
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": "both"},
        "spec": {"pluginConfig": config},
    })
}

impl Installation<'_> {
    /// Both WasmPlugins and the EnvoyFilter.
    ///
    /// # Errors
    ///
    /// The files in this program are not what they should be.
    pub fn objects(&self, config: &Value) -> Result<Vec<Value>> {
        let broken = |why: String| Failure::new(format!("a mistake in this program: istio/base: {why}"));
        let mut objects = Vec::new();
        for text in [EGRESS_HTTP, EGRESS_TCP] {
            let documents = document::read(text).map_err(|invalid| broken(invalid.to_string()))?;
            objects.extend(documents.iter().map(document::Node::to_value));
        }
        for object in &mut objects {
            set(object, "/metadata/namespace", self.namespace.into());
            set(object, "/metadata/labels", json!({"app.kubernetes.io/name": "egress-filter"}));
            let is_set = if object.get("kind").and_then(Value::as_str) == Some("WasmPlugin") {
                set(object, "/spec/url", self.url.into()) && set(object, "/spec/pluginConfig", config.clone())
            } else {
                set(object, "/spec/configPatches/0/patch/value/name", self.resource_name().into())
            };
            if !is_set {
                return Err(broken("a field is not where it should be".to_owned()));
            }
        }
        Ok(objects)
    }

    /// The name under which Istio serves the WasmPlugin `egress-tcp`.
    fn resource_name(&self) -> String {
        let namespace = self.namespace;
        if self.istio >= FIRST_WITH_TRAFFIC_EXTENSIONS {
            format!("extensions.istio.io/trafficextension/{namespace}.egress-tcp~istio-translated-wasmplugin")
        } else {
            format!("extensions.istio.io/wasmplugin/{namespace}.egress-tcp")
        }
    }
}

/// Sets a field of an object that is there; `false` if the object is not.
fn set(value: &mut Value, pointer: &str, field: Value) -> bool {
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return false;
    };
    let Some(Value::Object(fields)) = value.pointer_mut(parent) else {
        return false;
    };
    fields.insert(key.to_owned(), field);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(istio: &str) -> Vec<String> {
        let installation = Installation {
            namespace: "shop",
            url: "oci://registry.test/egress-filter@sha256:00",
            istio: istio.parse().unwrap(),
        };
        let objects = installation.objects(&json!({"registry": []})).unwrap();
        let name = |object: &Value| object.pointer("/spec/configPatches/0/patch/value/name").cloned();
        objects.iter().filter_map(name).map(|name| name.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_the_resource_as_each_istio_does() {
        let translated = ["extensions.istio.io/trafficextension/shop.egress-tcp~istio-translated-wasmplugin"];
        assert_eq!(names("1.30"), translated);
        assert_eq!(names("1.31.2"), translated);
        assert_eq!(names("2.0"), translated);
        assert_eq!(names("1.29.1"), ["extensions.istio.io/wasmplugin/shop.egress-tcp"]);
        assert_eq!("1".parse::<IstioVersion>(), Err(InvalidVersion));
        assert_eq!("main".parse::<IstioVersion>(), Err(InvalidVersion));
    }

    #[test]
    fn leaves_nothing_of_the_examples() {
        let installation = Installation { namespace: "shop", url: "oci://here.test/f", istio: "1.30".parse().unwrap() };
        let objects = installation.objects(&json!({"registry": []})).unwrap();
        let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["WasmPlugin", "WasmPlugin", "EnvoyFilter"]);
        for object in &objects {
            let text = object.to_string();
            assert!(!text.contains("registry.invalid") && !text.contains("NAMESPACE"), "{text}");
            assert_eq!(object["metadata"]["namespace"], "shop", "{text}");
            assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "egress-filter", "{text}");
        }
    }
}
