//! What a name and a look-up cost, and how that grows with the registry: [`Policy::decide`] beside `globset` and beside a
//! `HashMap` that is asked for the name and for each of its suffixes. Both are told less than a registry: no ports, no
//! entries, and no globs for the map.
//!
//! `globset` is not asked beyond 50,000 hosts: it takes half a second to build a set of those, 20 seconds for a million.
//! Lines before the benchmarks say how much memory 50,000 hosts take, and how long they take to load.

// Shared with the tests.
#[path = "../tests/support/random.rs"]
mod random;

use std::alloc::{GlobalAlloc, Layout, System};
use std::borrow::Cow;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use egress_filter::config::KnownNode;
use egress_filter::mesh::Route;
use egress_filter::name::{Authority, HostName};
use egress_filter::policy::{Destination, KnownAttributes, Policy, Target, WireProtocol};
use globset::{Glob, GlobSet, GlobSetBuilder};
use random::Random;

fn main() {
    // Without `--bench`, as from `cargo test`, criterion only tries each benchmark once, in a debug build.
    let sizes: &[usize] = if std::env::args().any(|argument| argument == "--bench") {
        &[10, 1_000, 50_000, 1_000_000]
    } else {
        &[10, 1_000]
    };
    report_memory(sizes.iter().copied().filter(|size| *size <= 50_000).max().unwrap_or_default());
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    names(&mut criterion);
    for size in sizes {
        look_ups(&mut criterion, *size);
    }
    criterion.final_summary();
}

fn names(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("name");
    for (what, text) in [
        ("lower case", "api.eu-central-1.example.com"),
        ("mixed case", "Api.EU-Central-1.Example.com"),
        ("with port", "api.eu-central-1.example.com:8443"),
        ("ipv4", "198.51.100.23"),
        ("ipv6", "[2001:db8::1:23]:8443"),
    ] {
        group.bench_function(what, |bencher| bencher.iter(|| Authority::from_wire(black_box(text.as_bytes()))));
    }
    group.finish();
}

fn look_ups(criterion: &mut Criterion, size: usize) {
    let list = List::new(size);
    let mut group = criterion.benchmark_group("look-up");

    let policy = policy(&json(&list.patterns, size));
    for (what, names) in list.kinds() {
        let destinations: Vec<Destination<'_>> = names.iter().map(|name| destination(name)).collect();
        let attributes = KnownAttributes {
            address: None,
            port: Some(443),
            route: Route::External,
            is_routed_by_name: true,
            connect_port: None,
            now: 0,
        };
        bench(&mut group, "egress-filter", what, size, &destinations, |destination| {
            policy.decide(black_box(destination), &attributes).is_denied()
        });
    }
    drop(policy);

    let map = SuffixMap::new(&list.patterns);
    for (what, names) in list.kinds().into_iter().filter(|(what, _)| *what != "glob") {
        bench(&mut group, "HashMap", what, size, names, |name| map.find(black_box(name)).is_some());
    }
    drop(map);

    if size <= 50_000 {
        let set = globset(&list.patterns);
        for (what, names) in list.kinds() {
            bench(&mut group, "globset", what, size, names, |name| set.is_match(black_box(name)));
        }
    }
    group.finish();
}

/// Asks for one name after the other, so that not every question finds its answer in the processor's cache.
fn bench<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    by: &str,
    what: &str,
    size: usize,
    asked: &[T],
    look_up: impl Fn(&T) -> bool,
) {
    let mut next = asked.iter().cycle();
    group.bench_function(BenchmarkId::new(format!("{what}, {by}"), size), |bencher| {
        bencher.iter(|| next.next().map(&look_up));
    });
}

fn destination(name: &str) -> Destination<'_> {
    let name = HostName::from_wire(name.as_bytes()).expect("a name of the generator");
    Destination { protocol: WireProtocol::Tls, target: Target::Name(name) }
}

fn policy(json: &str) -> Policy {
    Policy::from_json(json.as_bytes(), &KnownNode::default()).expect("a configuration of the generator")
}

fn globset(patterns: &[String]) -> GlobSet {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).expect("a glob of the generator"));
    }
    set.build().expect("a set of the generator")
}

/// What one would write without an index for globs: exact names as they are, wildcards from their first dot on.
struct SuffixMap(HashMap<String, u32>);

impl SuffixMap {
    fn new(patterns: &[String]) -> Self {
        let keys = patterns.iter().map(|pattern| pattern.strip_prefix('*').unwrap_or(pattern).to_owned());
        SuffixMap(keys.zip(0..).collect())
    }

    fn find(&self, name: &str) -> Option<u32> {
        let upper = name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = if upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) };
        let exact = self.0.get(name.as_ref());
        exact.or_else(|| name.match_indices('.').find_map(|(dot, _)| self.0.get(name.get(dot..)?))).copied()
    }
}

/// A list of hosts, of which one in ten is a wildcard and one in fifty a glob, and names to look up.
struct List {
    patterns: Vec<String>,
    exact: Vec<String>,
    wildcard: Vec<String>,
    glob: Vec<String>,
    miss: Vec<String>,
}

impl List {
    fn new(size: usize) -> Self {
        const ASKED: usize = 4_096;
        let mut random = Random(size as u64);
        let (globs, wildcards) = ((size / 50).max(1), size / 10);
        let domains = (size / 4).max(2);
        let mut list = List { patterns: Vec::new(), exact: vec![], wildcard: vec![], glob: vec![], miss: vec![] };
        for number in 0..size {
            let domain = domain(random.below(domains));
            let (pattern, asked, name) = if number < globs {
                let word = random.word();
                match number % 3 {
                    0 => (format!("{word}-*.{domain}"), format!("{word}-{number}.{domain}"), &mut list.glob),
                    1 => (format!("*-{word}.{domain}"), format!("{number}-{word}.{domain}"), &mut list.glob),
                    _ => (format!("{word}-*-eu.{domain}"), format!("{word}-{number}-eu.{domain}"), &mut list.glob),
                }
            } else if number < globs + wildcards {
                let zone = format!("zone-{number}.{domain}");
                (format!("*.{zone}"), format!("{}.{zone}", random.word()), &mut list.wildcard)
            } else {
                let host = format!("{}-{number}.{domain}", random.word());
                (host.clone(), host, &mut list.exact)
            };
            list.patterns.push(pattern);
            name.push(asked);
        }
        list.miss = (0..size.min(ASKED))
            .map(|number| format!("{}-x{number}.unlisted-{number}.example", random.word()))
            .collect();
        for names in [&mut list.exact, &mut list.wildcard, &mut list.glob, &mut list.patterns] {
            for position in (1..names.len()).rev() {
                names.swap(position, random.below(position + 1));
            }
        }
        for names in [&mut list.exact, &mut list.wildcard, &mut list.glob] {
            names.truncate(ASKED);
        }
        list
    }

    fn kinds(&self) -> [(&'static str, &[String]); 4] {
        [("exact", &self.exact), ("wildcard", &self.wildcard), ("glob", &self.glob), ("miss", &self.miss)]
    }
}

fn domain(number: usize) -> String {
    const TOPS: [&str; 5] = ["com", "net", "io", "co.uk", "example"];
    format!("vendor-{number}.{}", TOPS[number % TOPS.len()])
}

impl Random {
    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 12] = [
            "api", "auth", "cdn", "events", "files", "gateway", "login", "metrics", "payments", "queue", "storage",
            "webhooks",
        ];
        WORDS[self.below(WORDS.len())]
    }
}

/// A configuration with `hosts` of `patterns` in each entry; the smaller the entries, the more there is to hold.
fn json(patterns: &[String], hosts: usize) -> String {
    let mut json = String::from("{\"registry\":[");
    for (number, chunk) in patterns.chunks(hosts).enumerate() {
        let hosts = chunk.iter().map(|host| format!("\"{host}\"")).collect::<Vec<_>>().join(",");
        let comma = if number > 0 { "," } else { "" };
        json.push_str(comma);
        json.push_str(&format!("{{\"hosts\":[{hosts}],\"ports\":[{{\"number\":443,\"protocol\":\"TLS\"}}]}}"));
    }
    json.push_str("]}");
    json
}

/// The hosts of a configuration and nothing else, as `serde_json` alone reads them: what loading is measured against.
#[derive(serde::Deserialize)]
struct Plain {
    registry: Vec<PlainEntry>,
}

#[derive(serde::Deserialize)]
struct PlainEntry {
    hosts: Vec<String>,
}

#[allow(clippy::print_stdout, reason = "criterion has no place for bytes")]
fn report_memory(size: usize) {
    let list = List::new(size);
    for hosts in [size, 5, 1] {
        let json = json(&list.patterns, hosts);
        let start = Instant::now();
        let before = ALLOCATED.load(Ordering::Relaxed);
        PEAK.store(before, Ordering::Relaxed);
        let policy = black_box(policy(&json));
        let (took, retained) = (start.elapsed(), ALLOCATED.load(Ordering::Relaxed) - before);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        drop(policy);
        let start = Instant::now();
        let plain: Plain = serde_json::from_str(&json).expect("a configuration of the generator");
        let plain_took = start.elapsed();
        let read: usize = plain.registry.iter().map(|entry| entry.hosts.len()).sum();
        let bytes =
            |bytes: usize| format!("{} a host, {:.2} of the JSON", bytes / size, bytes as f64 / json.len() as f64);
        println!(
            "{size} hosts, {hosts} an entry: {} bytes of JSON a host; retained {}; at most {}; \
             loaded in {took:.1?}, {read} plain strings by serde_json in {plain_took:.1?}",
            json.len() / size,
            bytes(retained),
            bytes(peak),
        );
    }
}

/// The system's allocator, with a count of what is allocated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}
