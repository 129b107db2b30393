//! An egress filter for Istio and Envoy: workloads reach only the external hosts that are registered.
//!
//! # Map
//!
//! ```text
//! name ── pattern ── registry ── policy      the core: values in, values out
//!            address ──┘  │         │
//!                       config    mesh       JSON to policy; routes and what is inside the mesh
//! inspect ── client_hello, http_head         first bytes of a connection to whom they ask for
//! metrics   quiet                            names of metrics; what is logged how often
//! filter                                     proxy-wasm: reads from Envoy, asks the policy, does what it says
//! ```
//!
//! A request goes through [`name`] (what it asks for), [`policy`] (whether it may), and, within that, [`registry`] (what
//! lists it) and [`mesh`] (whether it stays inside). The configuration goes through [`config`] into a
//! [`policy::Policy`], which nothing changes afterwards.
//!
//! # Invariants
//!
//! - One normaliser ([`name`]) and one matcher ([`pattern`], [`registry`]) for Host, `:authority`, SNI and configuration.
//! - Everything but the filter is pure: no proxy-wasm, no IO, no clock, no logging. `egressctl` uses the same code, so it
//!   cannot disagree with the data plane.
//! - Nothing panics on what a client, a server or a configuration says. A panic would trap the VM that all streams of an
//!   Envoy worker share.
//! - Everything that a client can make grow is bounded: metric labels ([`metrics::UnlistedHosts`]), remembered log lines
//!   ([`quiet::MAX_SUBJECTS`]).
//! - What cannot be known counts against a destination, save that `deny` by address needs an address. No failure path lets
//!   anything pass.

#![cfg_attr(not(target_family = "wasm"), forbid(unsafe_code))]
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

pub mod address;
pub mod client_hello;
pub mod config;
pub mod http_head;
pub mod inspect;
pub mod mesh;
pub mod metrics;
pub mod name;
pub mod pattern;
pub mod policy;
pub mod quiet;
pub mod registry;

#[cfg(target_family = "wasm")]
mod filter;
