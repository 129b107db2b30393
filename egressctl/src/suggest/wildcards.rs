//! Wildcards in place of many hosts, where they are asked for.

use std::collections::{BTreeMap, BTreeSet};

/// The wildcards that stand for `hosts`, each with those that it stands for: where `least` or more lie below one domain that
/// can be registered, the deepest domain that all of them lie below.
///
/// A public suffix is never proposed: below `co.uk`, `github.io` or `s3.amazonaws.com` everyone has names.
#[must_use]
pub fn wildcards<'a>(hosts: &BTreeSet<&'a str>, least: u64) -> BTreeMap<&'a str, String> {
    let mut by_domain: BTreeMap<&str, Vec<&'a str>> = BTreeMap::new();
    for host in hosts {
        if let Some(domain) = psl::domain_str(host)
            && domain.len() < host.len()
        {
            by_domain.entry(domain).or_default().push(host);
        }
    }
    let mut replaced = BTreeMap::new();
    for (domain, below) in by_domain {
        if below.len() as u64 >= least {
            let parent = deepest_parent(domain, &below);
            replaced.extend(below.into_iter().map(|host| (host, format!("*.{parent}"))));
        }
    }
    replaced
}

/// The longest run of whole labels at the end of all hosts that is none of them itself.
fn deepest_parent<'a>(domain: &'a str, hosts: &[&'a str]) -> &'a str {
    let Some((first, others)) = hosts.split_first() else {
        return domain;
    };
    let mut parent = *first;
    while let Some((_, shorter)) = parent.split_once('.')
        && shorter.len() >= domain.len()
    {
        parent = shorter;
        if others.iter().all(|host| host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))) {
            return parent;
        }
    }
    domain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposes_the_deepest_common_parent_and_never_a_public_suffix() {
        for (hosts, least, expected) in [
            (&["a.saas.example", "b.saas.example", "c.d.saas.example"][..], 3, &["*.saas.example"; 3][..]),
            (&["a.eu.saas.example", "b.eu.saas.example"], 2, &["*.eu.saas.example"; 2]),
            (&["a.saas.example", "b.saas.example"], 3, &[]),
            (&["saas.example", "a.saas.example", "b.saas.example"], 2, &["*.saas.example"; 2]),
            (&["eu.saas.example", "a.eu.saas.example"], 2, &["*.saas.example"; 2]),
            (&["a.co.uk", "b.co.uk", "c.co.uk"], 2, &[]),
            (&["a.github.io", "b.github.io"], 2, &[]),
            (&["a.s3.amazonaws.com", "b.s3.amazonaws.com"], 2, &[]),
            (&["a.example", "b.example"], 2, &[]),
            (&["xa.saas.example", "a.saas.example"], 2, &["*.saas.example"; 2]),
        ] {
            let replaced = wildcards(&hosts.iter().copied().collect(), least);
            assert_eq!(replaced.values().collect::<Vec<_>>(), expected, "{hosts:?}");
        }
    }
}
