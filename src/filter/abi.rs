//! What Envoy calls: the callbacks of proxy-wasm ABI 0.2.1, and the contexts that they are for.
//!
//! Written by hand rather than taken from the SDK, whose dispatcher panics on what it does not expect, exports every
//! callback (Envoy enters the VM for each, for every stream) and takes 32 KiB of the module. Only what the filter uses is
//! exported. `proxy_on_delete` is among that: it frees contexts, and work at the end of a stream is done in `Drop`.

#![allow(unsafe_code, reason = "exported names are unsafe attributes, and the start-up function is foreign")]

use std::cell::RefCell;

use hashbrown::HashMap;

use super::host::{self, Level};
use super::root::{Root, Stream};
use super::tcp::{Act, TcpStream};
use super::vm;

/// What a callback answers about a stream's iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Action {
    Continue = 0,
    Pause = 1,
}

/// A plugin instance, or one of its streams.
enum Context {
    Root(Root),
    Stream(Stream),
}

thread_local! {
    /// By the number that Envoy gives.
    static CONTEXTS: RefCell<HashMap<u32, Context>> = RefCell::default();
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: Envoy calls `_initialize` once, before anything else.
    unsafe { __wasm_call_ctors() };
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// Room for a value that Envoy hands over; `host::received` takes it back.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(Box::<[u8]>::new_uninit_slice(size)).cast()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_context: u32, _configuration_size: usize) -> bool {
    true
}

/// A parent of 0 makes a plugin instance, any other a stream of that instance.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    CONTEXTS.with_borrow_mut(|contexts| {
        let created = match contexts.get(&parent) {
            Some(Context::Root(root)) => root.stream().map(Context::Stream),
            _ => Some(Context::Root(Root::default())),
        };
        if let Some(created) = created {
            contexts.insert(context, created);
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(context: u32, _configuration_size: usize) -> bool {
    CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&context) {
        Some(Context::Root(root)) => root.configure(),
        _ => false,
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: usize, end_of_stream: bool) -> Action {
    CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&context) {
        Some(Context::Stream(Stream::Http(stream))) => stream.on_request_headers(end_of_stream),
        Some(Context::Stream(Stream::Tcp(_))) => {
            let repair = "egress-tcp is attached to HTTP: use egress-http there, or attach it as a network filter";
            vm::say_once(Level::Error, repair);
            host::refuse_request("egress_misplaced", &format!("egress filter: {repair}\n"));
            Action::Pause
        }
        // Envoy has no such stream; if it had, nothing of it would pass.
        _ => Action::Pause,
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_new_connection(context: u32) -> Action {
    let act = CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&context) {
        Some(Context::Stream(Stream::Tcp(stream))) => stream.on_new_connection(),
        Some(Context::Stream(Stream::Http(_))) => {
            let repair = "egress-http is attached as a network filter: use egress-tcp there, or attach it to HTTP";
            vm::say_once(Level::Error, repair);
            Act::Close
        }
        // Envoy has no such stream; if it had, nothing of it would pass.
        _ => Act::Close,
    });
    carry_out(act)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_data(context: u32, size: usize, end_of_stream: bool) -> Action {
    carry_out(on_connection(context, |stream| stream.on_downstream_data(size, end_of_stream)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_data(context: u32, size: usize, _end_of_stream: bool) -> Action {
    carry_out(on_connection(context, |stream| stream.on_upstream_data(size)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    let held: Vec<u32> = CONTEXTS.with_borrow(|contexts| {
        let Some(Context::Root(root)) = contexts.get(&root) else {
            return Vec::new();
        };
        let Some(plugin) = root.tick() else {
            return Vec::new();
        };
        let is_held = |context: &Context| matches!(context, Context::Stream(Stream::Tcp(s)) if s.is_held_by(&plugin));
        contexts.iter().filter(|(_, context)| is_held(context)).map(|(id, _)| *id).collect()
    });
    let now = host::now();
    for context in held {
        // A stream that is gone is deleted, too, as soon as this returns.
        if host::set_effective_context(context) {
            carry_out(on_connection(context, |stream| stream.on_tick(now)));
        }
    }
}

/// What a stream has to say, or that nothing passes where Envoy has no such stream.
fn on_connection(context: u32, act: impl FnOnce(&mut TcpStream) -> Act) -> Act {
    CONTEXTS.with_borrow_mut(|contexts| match contexts.get_mut(&context) {
        Some(Context::Stream(Stream::Tcp(stream))) => act(stream),
        _ => Act::Hold,
    })
}

/// Calls Envoy when the table of contexts is free, since it may call back.
fn carry_out(act: Act) -> Action {
    match act {
        Act::Continue => Action::Continue,
        Act::Hold => Action::Pause,
        Act::Resume => {
            host::resume_downstream();
            Action::Continue
        }
        Act::Close => {
            host::close_downstream();
            Action::Pause
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    let deleted = CONTEXTS.with_borrow_mut(|contexts| contexts.remove(&context));
    // Its `Drop` calls Envoy, so the table is free again by now.
    drop(deleted);
}
