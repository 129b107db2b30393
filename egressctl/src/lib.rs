//! `egressctl`, the command line of the egress filter.
//!
//! # Map
//!
//! ```text
//! cli ── one module a command: check diff explain render replay suggest outbound_traffic_policy
//!           │
//!        enforced, sidecars                what is on one sidecar, and what all of it says of a call
//!           │
//!        configuration ── egress_filter    what a configuration means is the filter's own code
//!           │
//!        service_entry, istio_sidecar      Istio's objects, read as istiod reads them, with field
//!           │
//!        object ── source ── document      objects in files, with the line of everything
//!                  cluster                 the same from an API server
//!
//! call ── target, routing                  a URL, and where Envoy would send it
//!         access_log, prometheus           what was called
//! bounded, time, output, failure           tables that cannot grow without end; what all commands share
//! ```
//!
//! # Invariants
//!
//! - A verdict is never computed here: `egress_filter::policy::Policy` decides, as in the sidecar.
//! - What is printed to standard output is the answer; whatever else there is to say goes to standard error.
//! - Exit codes: 0 nothing found, allowed; 1 findings, denied; 2 bad usage or a failure.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
    )
)]

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
