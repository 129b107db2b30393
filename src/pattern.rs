//! Host patterns of the configuration: exact names, `*.suffix` and other globs.
//!
//! A pattern is parsed and matched here and nowhere else. Which of several matching patterns counts is decided by
//! [`crate::registry`]; whether a wildcard reaches too far (`*.com`) is a matter for a linter, not for the parser.

use std::borrow::Cow;
use std::fmt;

use crate::address::Cidr;
use crate::name::{self, Authority, Host, HostName, InvalidName};

/// Literal labels that must follow the last `*` of a glob: `api-*.example.com` may stand, `api-*.com` may not.
pub const LITERAL_LABELS: usize = 2;

/// What an entry's `hosts` may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern<'a> {
    /// One name.
    Exact(HostName<'a>),
    /// `*.example.com`: every name below `example.com`, at any depth, but not `example.com` itself. Holds the suffix.
    Suffix(HostName<'a>),
    /// `*` anywhere else before the last two labels.
    Glob(Glob<'a>),
}

impl<'a> HostPattern<'a> {
    /// Reads a pattern from configuration, in any case, with or without a trailing dot, in Unicode or as A-labels.
    ///
    /// # Errors
    ///
    /// [`InvalidPattern`], with the repair where there is one.
    pub fn from_config(text: &'a str) -> Result<Self, InvalidPattern> {
        let parsed = match HostName::from_config(text) {
            Ok(name) => Ok(HostPattern::Exact(name)),
            Err(InvalidName::Character('*')) if text.as_bytes().windows(2).any(|pair| pair == b"**") => {
                // Several stars in a row say no more than one.
                let mut previous = None;
                let single: String = text.chars().filter(|c| previous.replace(*c) != Some('*') || *c != '*').collect();
                with_wildcard(&single).map(HostPattern::into_owned)
            }
            Err(InvalidName::Character('*')) => with_wildcard(text),
            Err(invalid) => Err(Problem::Name(invalid)),
        };
        parsed.map_err(|problem| InvalidPattern::new(text, problem))
    }

    /// The same pattern, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> HostPattern<'static> {
        match self {
            HostPattern::Exact(name) => HostPattern::Exact(name.into_owned()),
            HostPattern::Suffix(suffix) => HostPattern::Suffix(suffix.into_owned()),
            HostPattern::Glob(Glob { text, suffix }) => {
                HostPattern::Glob(Glob { text: Cow::Owned(text.into_owned()), suffix })
            }
        }
    }

    /// Whether `host` matches.
    #[must_use]
    pub fn matches(&self, host: &HostName<'_>) -> bool {
        match self {
            HostPattern::Exact(name) => name == host,
            HostPattern::Suffix(suffix) => host != suffix && host.is_within(suffix),
            HostPattern::Glob(glob) => {
                let inner = host.as_str().strip_suffix(glob.suffix()).and_then(|inner| inner.strip_suffix('.'));
                inner.is_some_and(|inner| matches_inner(glob.inner(), inner))
            }
        }
    }
}

impl fmt::Display for HostPattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => write!(f, "{name}"),
            HostPattern::Suffix(suffix) => write!(f, "*.{suffix}"),
            HostPattern::Glob(glob) => f.write_str(&glob.text),
        }
    }
}

/// A pattern such as `api-*.example.com`, in normal form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob<'a> {
    text: Cow<'a, str>,
    /// Where the literal suffix starts; a dot stands before it.
    suffix: usize,
}

impl Glob<'_> {
    /// The labels after the last one with a `*`: `example.com` of `api-*.example.com`. [`LITERAL_LABELS`] or more.
    #[must_use]
    pub fn suffix(&self) -> &str {
        self.text.get(self.suffix..).unwrap_or_default()
    }

    /// What stands before the suffix: `api-*` of `api-*.example.com`.
    #[must_use]
    pub fn inner(&self) -> &str {
        self.text.get(..self.suffix.saturating_sub(1)).unwrap_or_default()
    }
}

/// Matches the part of a name before a glob's suffix with the part of the glob before it.
///
/// Both are split at dots. A first label `*` stands for one label or more, as in `*.example.com`; any other label `*` for
/// exactly one; a `*` within a label for any run of characters, none included.
pub(crate) fn matches_inner(glob: &str, name: &str) -> bool {
    let (glob, name) = match glob.strip_prefix("*.") {
        None => (glob, name),
        Some(rest) => {
            let labels = 1 + rest.bytes().filter(|byte| *byte == b'.').count();
            let Some((dot, _)) = name.rmatch_indices('.').nth(labels - 1) else {
                return false;
            };
            (rest, name.get(dot + 1..).unwrap_or_default())
        }
    };
    let mut globs = glob.split('.');
    let mut labels = name.split('.');
    loop {
        match (globs.next(), labels.next()) {
            (None, None) => return true,
            (Some(glob), Some(label)) if matches_label(glob.as_bytes(), label.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Matches one label. The last `*` tried is the only one that can still grow, so this takes at most
/// `glob.len() * label.len()` steps, 63 * 63 of them.
fn matches_label(mut glob: &[u8], mut label: &[u8]) -> bool {
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (glob, label) {
            ([], []) => return true,
            ([b'*', rest @ ..], _) => {
                glob = rest;
                retry = Some((rest, label));
            }
            ([g, glob_rest @ ..], [l, label_rest @ ..]) if g == l => {
                glob = glob_rest;
                label = label_rest;
            }
            _ => {
                let Some((after_star, [_, label_rest @ ..])) = retry else {
                    return false;
                };
                glob = after_star;
                label = label_rest;
                retry = Some((after_star, label_rest));
            }
        }
    }
}

/// Why a text is no host pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPattern {
    problem: Problem,
    repair: Option<String>,
}

impl InvalidPattern {
    fn new(text: &str, problem: Problem) -> Self {
        let repair = repair(text, &problem);
        InvalidPattern { problem, repair }
    }
}

impl fmt::Display for InvalidPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Name(InvalidName::IpLiteral) => f.write_str("an IP address is not a host")?,
            Problem::Name(invalid) => write!(f, "{invalid}")?,
            Problem::Everything => f.write_str("`*` would match every host")?,
            Problem::PartialLabel => f.write_str("the wildcard must be a whole label")?,
            Problem::LastLabels => write!(f, "a wildcard may not stand in the last {LITERAL_LABELS} labels")?,
            Problem::UnicodeLabel => f.write_str("a label with a wildcard must be ASCII")?,
        }
        match &self.repair {
            Some(repair) => write!(f, "; {repair}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InvalidPattern {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    Name(InvalidName),
    Everything,
    PartialLabel,
    LastLabels,
    UnicodeLabel,
}

fn with_wildcard(text: &str) -> Result<HostPattern<'_>, Problem> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text == "*" {
        return Err(Problem::Everything);
    }
    // Unicode has stars that UTS 46 maps to this one.
    if !text.contains('*') {
        return Err(Problem::UnicodeLabel);
    }
    if let Some(suffix) = text.strip_prefix("*.")
        && !suffix.contains('*')
    {
        // The dot that was dropped above was the only one that may be.
        if suffix.ends_with('.') {
            return Err(Problem::Name(InvalidName::EmptyLabel));
        }
        return HostName::from_config(suffix).map(HostPattern::Suffix).map_err(Problem::Name);
    }
    let ascii = labels_to_ascii(text)?;
    let text: Cow<'_, str> = match ascii {
        None => name::fold(text, true).map_err(Problem::Name)?,
        Some(ascii) => Cow::Owned(name::fold(&ascii, true).map_err(Problem::Name)?.into_owned()),
    };
    let last_star = text.rfind('*').unwrap_or_default();
    let suffix = text.get(last_star..).and_then(|rest| rest.find('.')).map_or(text.len(), |dot| last_star + dot + 1);
    let literal = text.get(suffix..).unwrap_or_default();
    if name::ends_in_number(literal) && !literal.is_empty() {
        return Err(Problem::Name(InvalidName::Ipv4Form));
    }
    if literal.split('.').filter(|label| !label.is_empty()).count() < LITERAL_LABELS {
        let partial = !text.starts_with("*.") && text.starts_with('*') && last_star == 0;
        return Err(if partial { Problem::PartialLabel } else { Problem::LastLabels });
    }
    Ok(HostPattern::Glob(Glob { text, suffix }))
}

/// The A-labels of a glob, or nothing when it is ASCII already.
fn labels_to_ascii(text: &str) -> Result<Option<String>, Problem> {
    if text.is_ascii() {
        return Ok(None);
    }
    let mut ascii = String::with_capacity(text.len() + 8);
    for (position, label) in text.split(['.', '\u{3002}', '\u{ff0e}', '\u{ff61}']).enumerate() {
        if position > 0 {
            ascii.push('.');
        }
        if label.is_ascii() {
            ascii.push_str(label);
        } else if label.contains('*') {
            return Err(Problem::UnicodeLabel);
        } else {
            ascii.push_str(&name::to_ascii(label).map_err(Problem::Name)?);
        }
    }
    Ok(Some(ascii))
}

/// Says what to write instead, where that can be told. Runs only for patterns that are refused.
fn repair(text: &str, problem: &Problem) -> Option<String> {
    match problem {
        Problem::Everything => Some("name the hosts (outboundTrafficPolicy.mode: ALLOW_ANY allows all)".to_owned()),
        Problem::PartialLabel => {
            let whole = format!("*.{}", text.trim_start_matches('*').trim_start_matches(['-', '.']));
            usable(&whole)
        }
        Problem::Name(InvalidName::IpLiteral) => Some(format!("list {text:?} under addresses")),
        Problem::Name(_) => unwrapped(text),
        Problem::LastLabels | Problem::UnicodeLabel => None,
    }
}

/// The host within a URL, an authority or a CIDR, and where the rest of it belongs.
fn unwrapped(text: &str) -> Option<String> {
    if text.parse::<Cidr>().is_ok() {
        return Some(format!("this is an address: list {text:?} under addresses"));
    }
    let bare = match (name::split_scheme(text), text.split_once('/')) {
        (Some((_, rest)), _) => rest.split(['/', '?', '#']).next().unwrap_or(rest),
        // `namespace/host`, as Istio's Sidecar has it.
        (None, Some((namespace, host))) if !namespace.contains('.') || namespace == "." => host,
        (None, Some((host, _))) => host,
        (None, None) => text,
    };
    let bare = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
    if let Ok(Authority { host: Host::Ip(ip), .. }) = Authority::from_wire(bare.as_bytes()) {
        return Some(format!("this is an address: list \"{ip}\" under addresses"));
    }
    let (host, port) = match bare.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port > 0)),
        None => (bare, None),
    };
    let host = host.trim();
    if host == text {
        return None;
    }
    let host = usable(host)?;
    Some(match port {
        Some(port) => format!("{host} and ports: [{{number: {port}}}]"),
        None => host,
    })
}

fn usable(host: &str) -> Option<String> {
    HostPattern::from_config(host).is_ok().then(|| format!("use {host:?}"))
}

#[cfg(test)]
mod tests;
