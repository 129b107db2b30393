//! `egressctl`, the command line of the egress filter.
//!
//! # Map
//!
//! ```text
//! cli ── one module a command: check explain render suggest replay diff outbound_traffic_policy
//!           │
//!        configuration ── egress_filter      what a configuration means is the filter's own code
//!           │
//!        object ── source ── document        objects in files, with the line of everything
//! ```
//!
//! # Invariants
//!
//! - A verdict is never computed here: `egress_filter::policy::Policy` decides, as in the sidecar.
//! - What is printed to standard output is the answer; whatever else there is to say goes to standard error.
//! - Exit codes: 0 nothing found, allowed; 1 findings, denied; 2 bad usage or a failure.

pub mod access_log;
pub mod bounded;
pub mod call;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod configuration;
pub mod diff;
pub mod document;
pub mod enforced;
pub mod explain;
pub mod failure;
pub mod field;
pub mod istio_sidecar;
pub mod object;
pub mod outbound_traffic_policy;
pub mod output;
pub mod prometheus;
pub mod render;
pub mod replay;
pub mod routing;
pub mod service_entry;
pub mod sidecars;
pub mod source;
pub mod suggest;
pub mod target;
pub mod time;
