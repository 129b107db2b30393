//! The proxy-wasm filter: a thin user of the core that reads from Envoy, asks [`Policy`](crate::policy::Policy) and does
//! what it says. Only here is there a host, a clock, a log or state that changes.
//!
//! Failure paths, all closed: a configuration that does not parse is refused, and Envoy keeps the last good one or, if
//! there is none, serves 500; a header or property that Envoy does not give counts against the request; a trap fails the
//! streams of its worker until Envoy makes the VM anew.

mod abi;
mod host;
mod http;
mod plugin;
mod root;
mod tcp;
mod vm;
