//! A filter that does nothing, as the SDK comes: what `make bench` compares with. With the root id `noop-tcp` it is a
//! network filter, otherwise one on HTTP. Given a configuration, it parses that into owned strings, the plainest way to
//! hold it, and logs how long that took.

#![cfg(target_family = "wasm")]
#![allow(missing_docs, reason = "the SDK's macro makes `_initialize`, which is the ABI's")]

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext, StreamContext};
use proxy_wasm::types::{ContextType, LogLevel};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    registry: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    hosts: Vec<String>,
}

#[derive(Default)]
struct Root {
    is_network: bool,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        self.is_network = self.get_property(vec!["plugin_root_id"]).as_deref() == Some(b"noop-tcp");
        let Some(text) = self.get_plugin_configuration() else {
            return true;
        };
        let start = self.get_current_time();
        let Ok(config) = serde_json::from_slice::<Config>(&text) else {
            return false;
        };
        let took = self.get_current_time().duration_since(start).unwrap_or_default();
        let hosts: usize = config.registry.iter().map(|entry| entry.hosts.len()).sum();
        let line = format!("noop: {hosts} hosts parsed in {} us", took.as_micros());
        hostcalls::log(LogLevel::Info, &line).is_ok()
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(if self.is_network { ContextType::StreamContext } else { ContextType::HttpContext })
    }

    fn create_stream_context(&self, _: u32) -> Option<Box<dyn StreamContext>> {
        Some(Box::new(Stream))
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream))
    }
}

struct Stream;

impl Context for Stream {}

impl HttpContext for Stream {}

impl StreamContext for Stream {}

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}
