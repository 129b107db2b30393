//! What the tests and benchmarks in real Envoy share: Envoy as a child process, a stand-in for the outside world, and a
//! sidecar's configuration made of a plugin configuration.

// Each test binary uses a part of this.
#![allow(dead_code, reason = "each test binary uses a part of this")]
pub mod client;
pub mod connections;
pub mod echo;
pub mod envoy;
pub mod hello;
pub mod scenario;
pub mod server;
pub mod sidecar;
pub mod tls;
pub mod upstream;
