//! Host calls: what Envoy offers a filter (proxy-wasm ABI 0.2.1).
//!
//! A status that is not `Ok` is an absent value, never a panic: a panic traps the VM that all streams of a worker share.

// Every buffer that Envoy hands over was allocated by `proxy_on_memory_allocate`, with exactly the size that it returns.
#![allow(unsafe_code, reason = "the proxy-wasm ABI passes pointers")]

use std::net::SocketAddr;
use std::time::Duration;

/// The severity of a log line, as the ABI numbers it.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum MetricKind {
    Counter = 0,
    Gauge = 1,
    Histogram = 2,
}

const OK: u32 = 0;
const REQUEST_HEADERS: u32 = 0;
const DOWNSTREAM_DATA: u32 = 2;
const PLUGIN_CONFIGURATION: u32 = 7;
const DOWNSTREAM: u32 = 2;
const GRPC_PERMISSION_DENIED: i32 = 7;
const GRPC_INTERNAL: i32 = 13;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, value: *mut *mut u8, value_size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        value: *mut *mut u8,
        value_size: *mut usize,
    ) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
}

/// Writes a line to Envoy's log.
pub(super) fn log(level: Level, line: &str) {
    // SAFETY: the text outlives the call.
    unsafe { proxy_log(level as u32, line.as_ptr(), line.len()) };
}

/// The time since the Unix epoch; if Envoy does not tell, one at which everything has expired.
pub(super) fn now() -> Duration {
    let mut nanoseconds = 0;
    // SAFETY: Envoy writes eight bytes.
    let status = unsafe { proxy_get_current_time_nanoseconds(&raw mut nanoseconds) };
    Duration::from_nanos(if status == OK { nanoseconds } else { u64::MAX })
}

/// The time in seconds since the Unix epoch.
pub(super) fn unix_seconds() -> i64 {
    i64::try_from(now().as_secs()).unwrap_or(i64::MAX)
}

/// The address that the current stream's client connected to, before any redirection.
pub(super) fn destination() -> Option<SocketAddr> {
    text_property("destination\0address")?.parse().ok()
}

/// The text of the plugin's configuration; `None` if it is empty.
pub(super) fn plugin_configuration() -> Option<Vec<u8>> {
    buffer(PLUGIN_CONFIGURATION, 0, usize::MAX)
}

/// What the client has sent and was not let through yet, from `start` on, at most `size` bytes of it. Only within the
/// callback for that data.
pub(super) fn downstream_data(start: usize, size: usize) -> Option<Vec<u8>> {
    buffer(DOWNSTREAM_DATA, start, size)
}

fn buffer(buffer: u32, start: usize, size: usize) -> Option<Vec<u8>> {
    let mut value = std::ptr::null_mut();
    let mut value_size = 0;
    // SAFETY: Envoy writes a pointer and a size.
    let status = unsafe { proxy_get_buffer_bytes(buffer, start, size, &raw mut value, &raw mut value_size) };
    received(status, value, value_size)
}

/// Lets through what the current connection's client has sent so far.
pub(super) fn resume_downstream() {
    // SAFETY: no pointers.
    unsafe { proxy_continue_stream(DOWNSTREAM) };
}

/// Closes the current connection, to the client and to the server.
pub(super) fn close_downstream() {
    // SAFETY: no pointers.
    unsafe { proxy_close_stream(DOWNSTREAM) };
}

/// Makes a stream the current one, for calls from its root's tick. False if it is gone.
pub(super) fn set_effective_context(context: u32) -> bool {
    // SAFETY: no pointers.
    unsafe { proxy_set_effective_context(context) == OK }
}

/// Calls the current plugin instance's tick so often from now on; zero stops that.
pub(super) fn set_tick_period(period: Duration) {
    let milliseconds = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: no pointers.
    unsafe { proxy_set_tick_period_milliseconds(milliseconds) };
}

/// A property; its path's parts are separated by NUL. `None` if there is none, or it is empty.
pub(super) fn property(path: &str) -> Option<Vec<u8>> {
    let mut value = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the path outlives the call; Envoy writes a pointer and a size.
    let status = unsafe { proxy_get_property(path.as_ptr(), path.len(), &raw mut value, &raw mut size) };
    received(status, value, size)
}

/// A property that is a text; `None` also if it is not UTF-8.
pub(super) fn text_property(path: &str) -> Option<String> {
    String::from_utf8(property(path)?).ok()
}

/// A property that is a 64-bit number.
pub(super) fn number_property(path: &str) -> Option<i64> {
    property(path)?.try_into().ok().map(i64::from_le_bytes)
}

/// A request header, as the bytes that came; `None` if there is none, or it is empty.
pub(super) fn request_header(name: &str) -> Option<Vec<u8>> {
    let mut value = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the name outlives the call; Envoy writes a pointer and a size.
    let status = unsafe {
        proxy_get_header_map_value(REQUEST_HEADERS, name.as_ptr(), name.len(), &raw mut value, &raw mut size)
    };
    received(status, value, size)
}

/// Leaves a text in filter state, where access logs find it as `%FILTER_STATE(wasm.NAME:PLAIN)%`.
pub(super) fn set_filter_state(name: &str, value: &str) {
    // SAFETY: both texts outlive the call.
    unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
}

/// Answers a request with 403, or with `grpc-status: 7` if it is gRPC: Envoy tells which by itself.
pub(super) fn deny_request(details: &str, headers: &[(&str, &str)], body: &str) {
    answer_request(403, GRPC_PERMISSION_DENIED, details, headers, body);
}

/// Answers a request with 500, or with `grpc-status: 13`: the filter cannot do its work.
pub(super) fn refuse_request(details: &str, body: &str) {
    answer_request(500, GRPC_INTERNAL, details, &[("content-type", "text/plain")], body);
}

fn answer_request(status: u32, grpc_status: i32, details: &str, headers: &[(&str, &str)], body: &str) {
    let headers = serialize(headers);
    // SAFETY: all buffers outlive the call.
    unsafe {
        proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    };
}

/// Defines a metric. Every call makes a new number, even for a name that is known: keep it.
pub(super) fn define_metric(kind: MetricKind, name: &str) -> Option<u32> {
    let mut id = 0;
    // SAFETY: the name outlives the call; Envoy writes four bytes.
    let status = unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) };
    (status == OK).then_some(id)
}

/// Adds to a counter or a gauge. A counter takes only what is above zero.
pub(super) fn add(id: u32, by: i64) {
    // SAFETY: no pointers.
    unsafe { proxy_increment_metric(id, by) };
}

/// Sets a gauge, or adds a value to a histogram.
pub(super) fn record(id: u32, value: u64) {
    // SAFETY: no pointers.
    unsafe { proxy_record_metric(id, value) };
}

fn received(status: u32, value: *mut u8, size: usize) -> Option<Vec<u8>> {
    if status != OK || value.is_null() {
        return None;
    }
    // SAFETY: allocated by `proxy_on_memory_allocate` as a boxed slice of `size` bytes, all written by Envoy.
    Some(unsafe { Vec::from_raw_parts(value, size, size) })
}

/// The ABI's form of a header map: the number of pairs, the sizes of all, then all texts with a NUL behind each.
fn serialize(pairs: &[(&str, &str)]) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(number(pairs.len()));
    for (name, value) in pairs {
        bytes.extend(number(name.len()));
        bytes.extend(number(value.len()));
    }
    for (name, value) in pairs {
        bytes.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    bytes
}
