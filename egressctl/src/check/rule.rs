//! The rules of `egressctl check`: codes that stay the same for ever, what each is about, and how much it weighs.
//!
//! EG0 is for what the filter refuses, EG1 for entries and configurations, EG2 for plugins and what attaches them, EG3 for
//! ServiceEntries. A code is never given to another rule.

use clap::ValueEnum;
use serde::Serialize;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; may well be meant.
    Note,
    /// Probably not what the author wants.
    Warning,
    /// Does not work.
    Error,
}

impl Severity {
    /// The word, which is also SARIF's level.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Such as `EG101`.
    pub code: &'static str,
    /// Such as `wildcard-on-public-suffix`.
    pub name: &'static str,
    /// How much it weighs, unless a finding weighs less.
    pub severity: Severity,
    /// What it is about, in one sentence.
    pub about: &'static str,
}

macro_rules! rules {
    ($($constant:ident $code:literal $name:literal $severity:ident $about:literal;)*) => {
        $(
            #[doc = $about]
            pub static $constant: Rule =
                Rule { code: $code, name: $name, severity: Severity::$severity, about: $about };
        )*

        /// All rules, by code.
        pub static ALL: &[&Rule] = &[$(&$constant),*];
    };
}

rules! {
    REFUSED "EG001" "refused" Error "The filter refuses a configuration with this in it, as a whole.";
    UNKNOWN_PLUGIN "EG002" "unknown-plugin-name" Error "The filter has the plugins egress-http and egress-tcp; with another pluginName it refuses to work.";

    PUBLIC_SUFFIX "EG101" "wildcard-on-public-suffix" Warning "A wildcard below a public suffix matches what anybody can register.";
    OPEN_PORT "EG102" "tcp-port-at-any-address" Warning "A TCP port in an entry without addresses is open at every address, for every name.";
    WIDE_ADDRESS "EG103" "wide-address" Warning "A very short prefix opens a large part of the address space.";
    DUPLICATE "EG104" "listed-twice" Warning "The same host or address stands in the list again and adds nothing.";
    SHADOWED "EG105" "shadowed" Warning "Another entry permits all of this anyway; taking this one out would change nothing.";
    NO_PORTS "EG106" "entry-without-ports" Note "An entry without ports is for every port and every protocol.";
    EXPIRED "EG107" "expired" Warning "The entry has expired and permits nothing.";
    EXPIRES_SOON "EG108" "expires-soon" Note "The entry expires soon; its users will be denied.";
    NORMAL_FORM "EG109" "not-in-normal-form" Note "Upper case, a trailing dot or host bits of a CIDR do not count; metrics show the normal form.";
    DENIED_ANYWAY "EG110" "listed-but-denied" Warning "The deny list has it, too, and wins.";
    MANY_GLOBS "EG111" "many-globs" Warning "Each look-up of a name tries all globs of the same suffix.";
    APEX "EG112" "apex-not-matched" Note "A wildcard matches what is below a name, never the name itself.";
    UNREACHABLE_OVERRIDE "EG120" "unreachable-override" Warning "No sidecar gets anything by this override.";
    OVERRULED "EG121" "overruled" Warning "A later override for the same sidecars sets the same field.";
    DENIES_NOTHING "EG130" "denies-nothing" Note "Nothing is denied by this configuration.";
    NO_MESH_ADDRESSES "EG131" "no-mesh-addresses" Note "Without mesh.addresses, what workloads send to a pod by its address counts as outside.";
    WIDE_MESH "EG132" "mesh-addresses-outside" Warning "What mesh.addresses hold is never denied by the registry; these are no private addresses, or hold cloud metadata.";
    SPOOFABLE "EG133" "spoofing-possible" Note "Envoy connects to the address that the client chose, whatever name it gives, unless a ServiceEntry resolves the name or spoofProtection is on.";
    UNVERIFIABLE "EG134" "no-address-to-verify" Warning "Under spoofProtection a host without addresses is denied wherever Envoy connects to the address that the client chose.";

    NOT_CLIENT "EG201" "not-client-mode" Error "Without match mode CLIENT the plugin also judges what comes in.";
    FAILS_OPEN "EG202" "fails-open" Error "With failStrategy FAIL_OPEN everything passes when the module cannot be loaded.";
    NO_RELOAD "EG203" "no-reload" Note "Without failStrategy FAIL_RELOAD a module that traps stays closed until the sidecar is recreated.";
    BY_TAG "EG204" "image-by-tag" Warning "A tag can be moved, and each node may have pulled another module under it.";
    NOT_ATTACHED "EG205" "not-attached" Warning "Nothing puts egress-tcp before tcp_proxy: TLS and TCP pass undecided.";
    ATTACHES_NOTHING "EG206" "attaches-nothing" Error "An EnvoyFilter waits for a plugin that is not there: new pods do not become ready.";
    ATTACHED_BY_ISTIO "EG207" "attached-by-istio" Warning "Istio itself attaches egress-tcp, also before HTTP, where it denies everything, and not to the catch-all chains.";
    ONE_ALONE "EG208" "one-plugin-alone" Warning "Only one of the two plugins is there: what the other would decide passes.";
    DIFFERENT "EG209" "configurations-differ" Note "egress-http and egress-tcp have different configurations: two registries in every sidecar, which may not agree.";
    BOTH_DECIDE "EG210" "both-decide" Warning "A namespace's plugin and a mesh-wide one are on the same workloads: what passes has passed both.";
    SERVER_FIRST "EG211" "server-first-unreachable" Warning "With ON_DOWNSTREAM_DATA a server that speaks first is not reached, unless it has a ServiceEntry.";

    INVALID_ENTRY "EG300" "invalid-service-entry" Error "Istio does not take a ServiceEntry with this in it.";
    RESOLUTION_NONE "EG301" "resolution-none" Warning "With resolution NONE Envoy connects to the address that the client chose, whatever name it gives.";
    VIP_BEFORE_SNI "EG302" "addresses-before-sni" Note "Istio matches TLS of a ServiceEntry with addresses by address and does not look at the SNI.";
    HOSTS_IGNORED "EG303" "hosts-ignored" Warning "Istio ignores the hosts of a TCP port; without addresses it takes the port at every address.";
    PARTIAL_WILDCARD "EG304" "partial-wildcard" Warning "A wildcard that is not a whole label works neither in Istio's routes nor in the filter.";
    CASE "EG305" "upper-case-host" Warning "Istio compares hosts letter by letter: this one is not the same as in lower case.";
    ISTIO_DENIES "EG306" "istio-denies-it" Warning "Under Istio's own REGISTRY_ONLY a host that no ServiceEntry has is denied by Istio.";
    EXPORTED "EG307" "exported-to-all" Note "Without exportTo a ServiceEntry is for every namespace.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_code_and_no_name_is_given_twice() {
        let mut codes: Vec<&str> = ALL.iter().map(|rule| rule.code).collect();
        assert!(codes.is_sorted(), "{codes:?}");
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
        let mut names: Vec<&str> = ALL.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
