//! The index over host patterns: one hash table of literal names, read from the right.
//!
//! Every exact name, and every literal suffix of a wildcard or glob, is a node. A look-up hashes the name once, from its
//! last byte to its first, and so has the hash of each suffix on the way; then it probes the table once for the whole name
//! and once for each suffix. The cost depends on the name's length, not on the size of the registry.

use std::ops::ControlFlow;

use super::PatternRef;
use super::globs::Globs;
use super::owners::{Chains, Owners};
use super::pages::{Pages, Texts};
use crate::name::{HostName, MAX_NAME};
use crate::pattern::HostPattern;

/// The most labels a name can have: one byte and a dot each.
const MAX_LABELS: usize = MAX_NAME.div_ceil(2);

/// Bits of a slot that hold a node's number plus one; the rest hold a part of its hash, so that most slots of other nodes
/// are passed over without reading the node.
const NODE_BITS: u32 = 24;

/// The most distinct names and suffixes that a registry can hold, 16 million.
pub(crate) const MAX_NODES: u32 = (1 << NODE_BITS) - 2;

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    texts: Texts,
    nodes: Pages<Node, 12>,
    /// Open addressing with linear probing; a power of two long, at most three quarters full. 0 is an empty slot.
    slots: Vec<u32>,
    globs: Globs,
    chains: Chains,
    has_suffixes: bool,
    patterns: u32,
}

#[derive(Debug)]
struct Node {
    text: u32,
    exact: Owners,
    suffix: Owners,
}

impl Hosts {
    /// Adds a pattern of an entry. `None` when the registry is full.
    pub(crate) fn add(&mut self, pattern: &HostPattern<'_>, entry: u32) -> Option<PatternRef> {
        let literal = match pattern {
            HostPattern::Exact(name) | HostPattern::Suffix(name) => name.as_str(),
            HostPattern::Glob(glob) => glob.suffix(),
        };
        let node = self.node(literal)?;
        let (reference, owners) = match pattern {
            HostPattern::Exact(_) => (PatternRef::exact(node), &mut self.nodes.get_mut(node)?.exact),
            HostPattern::Suffix(_) => {
                self.has_suffixes = true;
                (PatternRef::suffix(node), &mut self.nodes.get_mut(node)?.suffix)
            }
            HostPattern::Glob(glob) => {
                self.has_suffixes = true;
                let glob = self.globs.add(node, glob.inner(), &mut self.texts);
                (PatternRef::glob(glob), &mut self.globs.row_mut(glob)?.owners)
            }
        };
        if owners.is_none() {
            self.patterns += 1;
        }
        self.chains.add(owners, entry);
        Some(reference)
    }

    /// Calls `visit` with every pattern that matches `name` and each of its entries, the most specific pattern first:
    /// exact, then by the length of the literal suffix, globs before the wildcard of the same suffix.
    ///
    /// Globs of the same suffix come in no order; `rank` is the same for them and larger for what is less specific.
    pub(crate) fn visit(
        &self,
        name: &HostName<'_>,
        mut visit: impl FnMut(PatternRef, usize, u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.slots.is_empty() {
            return ControlFlow::Continue(());
        }
        let text = name.as_str();
        if !self.has_suffixes {
            let hash = text.bytes().rev().fold(SEED, step);
            return self.visit_exact(text, hash, &mut visit);
        }
        // The hash of each suffix that starts behind a dot, the shortest first.
        let mut suffixes = [0; MAX_LABELS];
        let mut labels = suffixes.iter_mut();
        let mut hash = SEED;
        for byte in text.bytes().rev() {
            if byte == b'.'
                && let Some(suffix) = labels.next()
            {
                *suffix = hash;
            }
            hash = step(hash, byte);
        }
        let unused = labels.len();
        self.visit_exact(text, hash, &mut visit)?;
        let dots = text.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(position, _)| position);
        let hashes = suffixes.iter().rev().skip(unused);
        for ((rank, dot), hash) in (1..).zip(dots).zip(hashes) {
            let (inner, suffix) = (text.get(..dot).unwrap_or_default(), text.get(dot + 1..).unwrap_or_default());
            let Some((position, node)) = self.find(suffix, *hash) else {
                continue;
            };
            if !self.globs.is_empty() {
                let mut flow = ControlFlow::Continue(());
                self.globs.each_match(position, inner, &self.texts, |glob, owners| {
                    for entry in self.chains.entries(owners) {
                        if flow.is_continue() {
                            flow = visit(PatternRef::glob(glob), 2 * rank, entry);
                        }
                    }
                });
                flow?;
            }
            for entry in self.chains.entries(node.suffix) {
                visit(PatternRef::suffix(position), 2 * rank + 1, entry)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// The number of distinct patterns.
    pub(crate) fn len(&self) -> u32 {
        self.patterns
    }

    /// Writes a pattern that [`visit`](Self::visit) gave.
    pub(crate) fn write(&self, pattern: PatternRef, out: &mut impl std::fmt::Write) -> std::fmt::Result {
        match pattern.kind() {
            super::PatternKind::Exact(node) => out.write_str(self.text(node)),
            super::PatternKind::Suffix(node) => {
                out.write_str("*.")?;
                out.write_str(self.text(node))
            }
            super::PatternKind::Glob(glob) => {
                out.write_str(self.globs.inner(glob, &self.texts))?;
                out.write_char('.')?;
                out.write_str(self.globs.row(glob).map(|row| self.text(row.suffix)).unwrap_or_default())
            }
            super::PatternKind::Address(_) => Ok(()),
        }
    }

    /// Keeps a text that is no pattern, such as an entry's name.
    pub(crate) fn keep(&mut self, text: &str) -> u32 {
        self.texts.push(text)
    }

    /// A text that was kept.
    pub(crate) fn kept(&self, position: u32) -> &str {
        self.texts.text(position)
    }

    /// Gives back what was allocated ahead.
    pub(crate) fn shrink(&mut self) {
        self.texts.shrink();
        self.nodes.shrink();
        self.chains.shrink();
    }

    fn text(&self, node: u32) -> &str {
        self.nodes.get(node).map(|node| self.texts.text(node.text)).unwrap_or_default()
    }

    fn visit_exact(
        &self,
        text: &str,
        hash: u64,
        visit: &mut impl FnMut(PatternRef, usize, u32) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if let Some((position, node)) = self.find(text, hash) {
            for entry in self.chains.entries(node.exact) {
                visit(PatternRef::exact(position), 0, entry)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn find(&self, text: &str, hash: u64) -> Option<(u32, &Node)> {
        let (mut slot, tag) = self.start(hash);
        loop {
            let content = *self.slots.get(slot)?;
            if content == 0 {
                return None;
            }
            if content >> NODE_BITS == tag {
                let position = (content & (MAX_NODES + 1)) - 1;
                let node = self.nodes.get(position)?;
                if self.texts.bytes(node.text) == text.as_bytes() {
                    return Some((position, node));
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The node of a literal text, which is added if it is new.
    fn node(&mut self, text: &str) -> Option<u32> {
        let hash = text.bytes().rev().fold(SEED, step);
        if !self.slots.is_empty()
            && let Some((position, _)) = self.find(text, hash)
        {
            return Some(position);
        }
        if self.nodes.len() >= MAX_NODES {
            return None;
        }
        if (self.nodes.len() as usize + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let text = self.texts.push(text);
        let position = self.nodes.push(Node { text, exact: Owners::NONE, suffix: Owners::NONE });
        self.insert(hash, position);
        Some(position)
    }

    fn grow(&mut self) {
        let length = (self.slots.len() * 2).max(16);
        self.slots = Vec::new(); // freed before the larger one is asked for
        self.slots = vec![0; length];
        for position in 0..self.nodes.len() {
            let hash = self.text(position).bytes().rev().fold(SEED, step);
            self.insert(hash, position);
        }
    }

    fn insert(&mut self, hash: u64, position: u32) {
        let (mut slot, tag) = self.start(hash);
        while self.slots.get(slot).is_some_and(|content| *content != 0) {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = tag << NODE_BITS | (position + 1);
        }
    }

    /// Where to look first, and the tag to look for.
    #[allow(clippy::cast_possible_truncation, reason = "the masks keep what is wanted")]
    fn start(&self, hash: u64) -> (usize, u32) {
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed >> 32) as usize & (self.slots.len() - 1), (mixed >> 24) as u32 & 0xff)
    }
}

/// FNV-1a, 64 bits. The keys are the operator's, so nobody can choose them to collide; whoever chooses the name that is
/// looked up can only choose how soon it is not found.
const SEED: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
}
