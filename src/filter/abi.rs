//! What Envoy calls: the callbacks of proxy-wasm ABI 0.2.1, and the contexts that they are for.
//!
//! Written by hand rather than taken from the SDK, whose dispatcher panics on what it does not expect, exports every
//! callback (Envoy enters the VM for each, for every stream) and takes 32 KiB of the module. Only what the filter uses is
//! exported. `proxy_on_delete` is among that: it frees contexts, and work at the end of a stream is done in `Drop`.

#![allow(unsafe_code, reason = "exported names are unsafe attributes, and the start-up function is foreign")]

use std::cell::RefCell;

use hashbrown::HashMap;

use super::http::HttpStream;
use super::root::Root;

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
    Http(HttpStream),
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
            Some(Context::Root(root)) => Context::Http(root.http_stream()),
            _ => Context::Root(Root::default()),
        };
        contexts.insert(context, created);
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
        Some(Context::Http(stream)) => stream.on_request_headers(end_of_stream),
        // Envoy has no such stream; if it had, nothing of it would pass.
        _ => Action::Pause,
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    let deleted = CONTEXTS.with_borrow_mut(|contexts| contexts.remove(&context));
    // Its `Drop` calls Envoy, so the table is free again by now.
    drop(deleted);
}
