//! The root context: one for each plugin instance and configuration, on each worker.

use std::rc::Rc;
use std::time::Duration;

use super::host::{self, Level};
use super::http::HttpStream;
use super::plugin::Plugin;
use super::tcp::{TcpPlugin, TcpStream};
use super::vm::{self, ConfigId};
use crate::config::Node;
use crate::metrics;
use crate::policy::{Enforcement, Mode, Policy};

/// The `pluginName` (root id) of the plugin on HTTP.
const EGRESS_HTTP: &str = "egress-http";

/// The `pluginName` (root id) of the plugin on TLS and TCP.
const EGRESS_TCP: &str = "egress-tcp";

#[derive(Default)]
pub(super) enum Root {
    #[default]
    Unconfigured,
    Http(Rc<Plugin>),
    Tcp(Rc<TcpPlugin>),
}

/// A stream of a plugin instance.
pub(super) enum Stream {
    Http(HttpStream),
    Tcp(TcpStream),
}

impl Root {
    /// Takes the configuration that Envoy has for this instance; false refuses it.
    pub(super) fn configure(&mut self) -> bool {
        let root_id = host::text_property("plugin_root_id").unwrap_or_default();
        let make: fn(Rc<Policy>) -> Root = match root_id.as_str() {
            EGRESS_HTTP => |policy| Root::Http(Rc::new(Plugin::new(policy, metrics::requests))),
            EGRESS_TCP => |policy| Root::Tcp(Rc::new(TcpPlugin::new(policy))),
            _ => {
                host::log(
                    Level::Error,
                    &format!(
                        "pluginName (root_id) {root_id:?} is unknown; use {EGRESS_HTTP:?} on HTTP, {EGRESS_TCP:?} on \
                         TLS and TCP"
                    ),
                );
                vm::increment(metrics::config_rejected(&metrics::label(&root_id)));
                return false;
            }
        };
        // Envoy has nothing to hand over for an empty configuration.
        let text = host::plugin_configuration().unwrap_or_default();
        let Some(policy) = load(&root_id, &text) else {
            vm::increment(metrics::config_rejected(&root_id));
            return false;
        };
        *self = make(policy);
        true
    }

    /// A stream of this instance; `None` before it is configured, when Envoy makes none.
    pub(super) fn stream(&self) -> Option<Stream> {
        match self {
            Root::Unconfigured => None,
            Root::Http(plugin) => Some(Stream::Http(HttpStream::new(Rc::clone(plugin)))),
            Root::Tcp(plugin) => Some(Stream::Tcp(TcpStream::new(Rc::clone(plugin)))),
        }
    }

    /// Whose connections are held, if any are: their time may be up.
    pub(super) fn tick(&self) -> Option<Rc<TcpPlugin>> {
        match self {
            Root::Tcp(plugin) if plugin.tick() => Some(Rc::clone(plugin)),
            _ => None,
        }
    }
}

/// Reads a configuration, or shares it with the plugin of this VM that runs the same.
fn load(root_id: &str, text: &[u8]) -> Option<Rc<Policy>> {
    let start = host::now();
    let id = ConfigId::of(text);
    let policy = match vm::shared_policy(id) {
        Some(policy) => policy,
        None => match Policy::from_json(text, &XdsNode) {
            Ok(policy) => {
                let policy = Rc::new(policy);
                vm::share_policy(id, &policy);
                policy
            }
            Err(invalid) => {
                host::log(Level::Error, &format!("configuration {} is refused:", id.label()));
                for line in invalid.to_string().lines() {
                    host::log(Level::Error, line);
                }
                return None;
            }
        },
    };
    announce(root_id, id, &policy, host::now().saturating_sub(start));
    Some(policy)
}

fn announce(root_id: &str, id: ConfigId, policy: &Policy, took: Duration) {
    let config = id.label();
    let plugin_name = host::text_property("plugin_name").unwrap_or_default();
    if let Some(before) = vm::replace_running(root_id, plugin_name, id) {
        vm::set_gauge(metrics::config_info(root_id, &before.label()), 0);
        vm::set_gauge(metrics::registry_hosts(root_id, &before.label()), 0);
    }
    let hosts = policy.registry().host_patterns();
    vm::set_gauge(metrics::config_info(root_id, &config), 1);
    vm::set_gauge(metrics::registry_hosts(root_id, &config), u64::from(hosts));
    let mode = match policy.mode() {
        Mode::RegistryOnly => "REGISTRY_ONLY",
        Mode::AllowAny => "ALLOW_ANY",
    };
    let enforcement = match policy.enforcement() {
        Enforcement::Enforce => "ENFORCE",
        Enforcement::Report => "REPORT",
    };
    host::log(
        Level::Info,
        &format!(
            "configuration {config}: {mode}, {enforcement}, {hosts} hosts in {} entries; loaded in {} us, \
             {} KiB of memory",
            policy.registry().entries(),
            u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            core::arch::wasm32::memory_size(0) * 64,
        ),
    );
}

/// The node as Istio's agent describes it to Envoy.
struct XdsNode;

impl Node for XdsNode {
    fn namespace(&self) -> Option<String> {
        host::text_property("xds\0node\0metadata\0NAMESPACE")
    }

    fn workload(&self) -> Option<String> {
        host::text_property("xds\0node\0metadata\0WORKLOAD_NAME")
    }

    fn label(&self, key: &str) -> Option<String> {
        host::text_property(&format!("xds\0node\0metadata\0LABELS\0{key}"))
    }
}
