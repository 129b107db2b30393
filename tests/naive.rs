//! Compares the policy with a second implementation, written from the design and not from the source: `naive/oracle.rs`
//! tries every entry, every host and every address of small random worlds, whose few labels, addresses and ports overlap
//! everywhere. A larger list of hosts, where an index can go wrong in ways that small ones do not show, comes after it.

#[path = "naive/oracle.rs"]
mod oracle;
#[path = "support/random.rs"]
mod random;
#[path = "naive/world.rs"]
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use egress_filter::config::KnownNode;
use egress_filter::mesh::Route;
use egress_filter::name::{Authority, HostName};
use egress_filter::policy::{Decision, Destination, KnownAttributes, Policy, Reason, Target, WireProtocol};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};

use oracle::{Found, decide, pattern_matches};
use random::Random;
use world::{Asked, Config, IpText, Kind, Routed, Whom};

const CASES: u32 = 5_000;

#[test]
fn the_policy_decides_as_a_scan_over_everything_does() {
    let decided: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let cases = (world::config(), prop::collection::vec(world::asked(), 16));
    let result = TestRunner::new(config).run(&cases, |(config, asked)| {
        let policy = policy(&config)?;
        for asked in &asked {
            let expected = decide(&config, asked);
            let found = ask(&policy, asked);
            prop_assert!(
                expected.permits(&found),
                "found {:?}\nexpected {:?}\n{:#?}\n{}",
                found,
                expected,
                asked,
                config.json()
            );
            *decided.borrow_mut().entry(format!("{} {}", found.verdict, found.reason)).or_default() += 1;
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        // The rest of it is the case as data; the reason has it as JSON.
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let decided = decided.into_inner();
    for reason in Reason::ALL {
        // The two that `decide` never gives.
        if matches!(reason, Reason::MeshDenied | Reason::ClosedEarly) {
            continue;
        }
        let times: u32 =
            decided.iter().filter(|(key, _)| key.ends_with(&format!(" {}", reason.as_str()))).map(|(_, n)| n).sum();
        assert!(times >= 20, "{} was decided {times} times only, of {decided:#?}", reason.as_str());
    }
}

fn policy(config: &Config) -> Result<Policy, TestCaseError> {
    let json = config.json().to_string();
    Policy::from_json(json.as_bytes(), &world::node())
        .map_err(|invalid| TestCaseError::fail(format!("{invalid}\n{json}")))
}

/// What the code under test says.
fn ask(policy: &Policy, asked: &Asked) -> Found {
    decided_with(asked, |destination, attributes| Some(found(policy, &policy.decide(destination, attributes)))).unwrap()
}

fn ask_unrouted(policy: &Policy, asked: &Asked) -> Option<Found> {
    decided_with(asked, |destination, attributes| {
        Some(found(policy, &policy.decide_unrouted(destination, attributes)?))
    })
}

fn decided_with(
    asked: &Asked,
    decide: impl FnOnce(&Destination<'_>, &KnownAttributes<'_>) -> Option<Found>,
) -> Option<Found> {
    let text;
    let target = match &asked.whom {
        Whom::Name(name) => {
            text = name.spelt();
            Target::Name(HostName::from_wire(text.as_bytes()).unwrap())
        }
        Whom::Ip(ip) => {
            text = ip.bracketed();
            Target::from(Authority::from_wire(text.as_bytes()).map(|authority| authority.host))
        }
        Whom::Nobody(nobody) => Target::Unnamed(*nobody),
    };
    decide(&Destination { protocol: asked.protocol, target }, &attributes(asked))
}

fn attributes(asked: &Asked) -> KnownAttributes<'static> {
    let route = match asked.route {
        Routed::Passthrough => Route::Passthrough,
        Routed::Service(host) => Route::Service(host),
        Routed::External => Route::External,
        Routed::Unknown => Route::Unknown,
    };
    let (address, is_routed_by_name) = (asked.address.map(IpText::std), asked.routed_by_name);
    let (port, connect_port) = (asked.port, asked.connect_port);
    KnownAttributes { address, port, connect_port, route, is_routed_by_name, now: world::NOW }
}

fn found(policy: &Policy, decision: &Decision<'_>) -> Found {
    Found {
        verdict: decision.verdict.as_str(),
        reason: decision.reason.as_str(),
        label: policy.host_label(decision.counted).to_string(),
        entry: decision.entry.map(egress_filter::registry::EntryId::position),
    }
}

/// What is decided before the bytes or the route are known is what they confirm, whatever they turn out to be.
#[test]
fn nothing_that_comes_later_changes_an_early_decision() {
    let early: RefCell<BTreeMap<String, u32>> = RefCell::default();
    let note = |when: &str, found: &Found| {
        *early.borrow_mut().entry(format!("{when} {} {}", found.verdict, found.reason)).or_default() += 1;
    };
    let config = ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
    let cases = (world::config(), prop::collection::vec(world::asked(), 16), prop::collection::vec(world::asked(), 4));
    let result = TestRunner::new(config).run(&cases, |(config, asked, later)| {
        let policy = policy(&config)?;
        for asked in &asked {
            // A connection on one of Istio's catch-all chains keeps its route; on any other it can turn out to be any.
            let is_catch_all = asked.route == Routed::Passthrough;
            let before = if is_catch_all { Routed::Passthrough } else { Routed::Unknown };
            let routes: Vec<Routed> = later.iter().map(|later| later.route).collect();
            let routes = if is_catch_all { vec![Routed::Passthrough] } else { routes };

            let unseen = Asked { route: before, routed_by_name: false, connect_port: None, ..asked.clone() };
            if let Some(decision) = policy.decide_unseen(&attributes(&unseen)) {
                let decided = found(&policy, &decision);
                note("unseen", &decided);
                // An address in place of a name, which `deny` may have, is not waited for.
                for bytes in later.iter().filter(|bytes| !matches!(bytes.whom, Whom::Ip(_))) {
                    for route in &routes {
                        let Asked { protocol, connect_port, .. } = *bytes;
                        let seen = Asked { protocol, connect_port, whom: bytes.whom.clone(), ..unseen.clone() };
                        let confirmed = ask(&policy, &Asked { route: *route, ..seen });
                        prop_assert_eq!(confirmed.verdict, decided.verdict, "{:#?}\n{}", unseen, config.json());
                    }
                }
            }

            let unrouted = Asked { route: before, ..asked.clone() };
            if let Some(decided) = ask_unrouted(&policy, &unrouted) {
                note("unrouted", &decided);
                for route in &routes {
                    let confirmed = ask(&policy, &Asked { route: *route, ..unrouted.clone() });
                    // The entry that it is counted under may be another, where an unknown route is unverified.
                    let [found, early] = [&confirmed, &decided].map(|found| (found.verdict, found.reason));
                    prop_assert_eq!(found, early, "{:#?}\n{}", unrouted, config.json());
                }
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        // The rest of it is the case as data; the reason has it as JSON.
        Err(TestError::Fail(reason, _)) => panic!("{reason}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let early = early.into_inner();
    for when in ["unseen", "unrouted"] {
        for what in ["allowed listed", "denied deny_listed", "would_deny deny_listed", "allowed mesh_internal"] {
            let times = early.get(&format!("{when} {what}")).copied().unwrap_or_default();
            assert!(times >= 20, "{when}: {what} {times} times only, of {early:#?}");
        }
    }
}

#[test]
fn the_oracle_matches_patterns_as_the_design_says() {
    for (pattern, matching, other) in [
        ("a.b", &["a.b"][..], &["b.a", "a.a.b", "a"][..]),
        ("*.a.b", &["b.a.b", "a.b.a.b"], &["a.b", "ba.b", "b.a.b.a"]),
        ("a*.a.b", &["a.a.b", "ab.a.b"], &["b.a.b", "b.a.a.b", "a.b"]),
        ("*.a*.a.b", &["b.a.a.b", "b.b.ab.a.b"], &["a.a.b", "ab.a.b"]),
        ("b.*.a.b", &["b.a.a.b"], &["b.a.b", "b.a.a.a.b", "a.b.a.a.b"]),
        ("*b*.a.b", &["b.a.b", "aba.a.b"], &["a.a.b", "b.b.a.b"]),
    ] {
        for name in matching {
            assert!(pattern_matches(pattern, name), "{pattern} should match {name}");
        }
        for name in other {
            assert!(!pattern_matches(pattern, name), "{pattern} should not match {name}");
        }
    }
}

impl Random {
    fn label(&mut self, alphabet: &str, longest: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..=self.below(longest)).map(|_| letters[self.below(letters.len())]).collect()
    }

    /// A domain that others lie under, too.
    fn domain(&mut self) -> String {
        let tops = ["com", "net", "org", "co.uk", "example"];
        let top = tops[self.below(tops.len())];
        let mut domain = format!("{}.{top}", self.label("abc", 3));
        for _ in 0..self.below(3) {
            domain = format!("{}.{domain}", self.label("ab", 2));
        }
        domain
    }

    /// Under few domains, where many of them match the same name.
    fn glob(&mut self, domains: &[String]) -> String {
        let (head, tail) = (self.label("abc", 2), self.label("abc", 2));
        let inner = match self.below(5) {
            0 => format!("{head}*"),
            1 => format!("*{tail}"),
            2 => format!("{head}*{tail}"),
            3 => format!("{head}.*"),
            _ => format!("*.{head}*"),
        };
        format!("{inner}.{}", domains[self.below(domains.len())])
    }
}

/// The map and the scan.
struct Listed<'a> {
    /// By pattern: the first entry that has it.
    first: HashMap<&'a str, usize>,
    /// Pattern, literal suffix, first entry.
    globs: Vec<(&'a str, &'a str, usize)>,
}

impl<'a> Listed<'a> {
    fn new(entries: &'a [Vec<String>]) -> Self {
        let mut first: HashMap<&str, usize> = HashMap::new();
        for (entry, hosts) in entries.iter().enumerate() {
            for host in hosts {
                first.entry(host).or_insert(entry);
            }
        }
        let globs = first.iter().filter(|(pattern, _)| Kind::of(pattern) == Kind::Glob);
        let globs = globs.map(|(pattern, entry)| (*pattern, world::literal_suffix(pattern), *entry)).collect();
        Listed { first, globs }
    }

    /// The patterns that a name may be counted under, and their entry.
    fn most_specific(&self, name: &str) -> Option<(Vec<&'a str>, usize)> {
        if let Some((&host, &entry)) = self.first.get_key_value(name) {
            return Some((vec![host], entry));
        }
        name.match_indices('.').find_map(|(dot, _)| {
            let suffix = &name[dot + 1..];
            let under =
                self.globs.iter().filter(|(glob, literal, _)| *literal == suffix && pattern_matches(glob, name));
            let under: Vec<_> = under.copied().collect();
            if let Some(earliest) = under.iter().map(|(_, _, entry)| *entry).min() {
                let hosts = under.into_iter().filter(|(_, _, entry)| *entry == earliest);
                return Some((hosts.map(|(glob, _, _)| glob).collect(), earliest));
            }
            let (&wildcard, &entry) = self.first.get_key_value(format!("*.{suffix}").as_str())?;
            Some((vec![wildcard], entry))
        })
    }
}

#[test]
fn many_hosts_are_found_as_a_map_and_a_scan_find_them() {
    let mut random = Random(1);
    let mut patterns: Vec<String> = Vec::new();
    for _ in 0..20_000 {
        let host = format!("{}.{}", random.label("abcdefgh-_", 8), random.domain());
        patterns.push(host);
    }
    patterns.extend((0..2_000).map(|_| format!("*.{}", random.domain())));
    let domains: Vec<String> = (0..20).map(|_| random.domain()).collect();
    patterns.extend((0..500).map(|_| random.glob(&domains)));
    for position in (1..patterns.len()).rev() {
        patterns.swap(position, random.below(position + 1));
    }
    let mut entries: Vec<Vec<String>> = Vec::new();
    for pattern in &patterns {
        match entries.last_mut() {
            Some(entry) if entry.len() < 5 && random.below(2) == 0 => entry.push(pattern.clone()),
            _ => entries.push(vec![pattern.clone()]),
        }
    }

    let registry: Vec<_> = entries.iter().map(|hosts| serde_json::json!({"hosts": hosts})).collect();
    let json = serde_json::json!({"registry": registry}).to_string();
    let policy = Policy::from_json(json.as_bytes(), &KnownNode::default()).unwrap();
    assert_eq!(policy.registry().entries() as usize, entries.len());

    let listed = Listed::new(&entries);
    assert_eq!(policy.registry().host_patterns() as usize, listed.first.len());
    assert!(listed.globs.len() > 300, "{} globs", listed.globs.len());

    let mut kinds: BTreeMap<Option<Kind>, u32> = BTreeMap::new();
    for _ in 0..5_000 {
        let pattern = &patterns[random.below(patterns.len())];
        let mut name = match random.below(4) {
            0 => format!("{}.{}", random.label("abc", 3), random.domain()),
            1 => format!("{}.{}", random.label("abc", 3), pattern.trim_start_matches("*.").replace('*', "b")),
            _ => pattern.replace('*', &random.label("abc", 2)),
        };
        if random.below(8) == 0 {
            name.insert(random.below(name.len()), 'c');
        }
        let name = name.as_str();

        let expected = listed.most_specific(name);
        let destination = Destination {
            protocol: WireProtocol::Http,
            target: Target::Name(HostName::from_wire(name.as_bytes()).unwrap()),
        };
        let attributes = KnownAttributes {
            address: None,
            port: Some(80),
            route: Route::External,
            is_routed_by_name: true,
            connect_port: None,
            now: 0,
        };
        let decision = policy.decide(&destination, &attributes);
        let label = policy.host_label(decision.counted).to_string();
        match &expected {
            Some((hosts, entry)) => {
                assert_eq!(decision.reason, Reason::Listed, "{name}: should be listed as {hosts:?}");
                assert!(hosts.contains(&label.as_str()), "{name}: counted under {label}, not under one of {hosts:?}");
                assert_eq!(decision.entry.map(egress_filter::registry::EntryId::position), Some(*entry), "{name}");
                *kinds.entry(Some(Kind::of(&label))).or_default() += 1;
            }
            None => {
                assert_eq!((decision.reason, label.as_str()), (Reason::NotListed, name));
                *kinds.entry(None).or_default() += 1;
            }
        }
    }
    for kind in [None, Some(Kind::Exact), Some(Kind::Wildcard), Some(Kind::Glob)] {
        let times = kinds.get(&kind).copied().unwrap_or_default();
        assert!(times > 100, "{kind:?} was found {times} times only");
    }
}
