//! The index over host patterns: one hash table of literal names.
//!
//! Every exact name, and every literal suffix of a wildcard or glob, is a node. A look-up probes the table once for the
//! whole name and once for each of its suffixes, the longest first. The cost depends on the name's length and number of
//! labels, not on the size of the registry.

use std::ops::ControlFlow;

use super::PatternRef;
use super::globs::Globs;
use super::owners::{Chains, Owners};
use super::pages::{Pages, Texts};
use crate::name::HostName;
use crate::pattern::HostPattern;

/// Bits of a slot that hold a node's number plus one; the rest hold a part of its hash, so that most slots of other nodes
/// are passed over without reading the node.
const NODE_BITS: u32 = 24;

/// The most distinct names and suffixes that a registry can hold, 16 million.
pub(crate) const MAX_NODES: u32 = (1 << NODE_BITS) - 2;

#[derive(Debug, Default)]
pub(crate) struct Hosts {
    texts: Texts,
    nodes: Pages<Node, 12>,
    /// Open addressing with linear probing; a power of two long, at most seven eighths full. 0 is an empty slot.
    slots: Vec<u32>,
    globs: Globs,
    chains: Chains,
    has_suffixes: bool,
    patterns: u32,
}

#[derive(Debug)]
struct Node {
    text: u32,
    /// Kept, so that the table grows without reading the texts again.
    hash: u32,
    exact: Owners,
    suffix: Owners,
}

impl Hosts {
    /// Makes room for about so many names, so that the table need not grow step by step.
    pub(crate) fn expect(&mut self, names: usize) {
        self.grow(names.next_power_of_two());
    }

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
        if let Some((position, node)) = self.find(text, hash(text)) {
            for entry in self.chains.entries(node.exact) {
                visit(PatternRef::exact(position), 0, entry)?;
            }
        }
        if !self.has_suffixes {
            return ControlFlow::Continue(());
        }
        let dots = text.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(position, _)| position);
        for (rank, dot) in (1..).zip(dots) {
            let (inner, suffix) = (text.get(..dot).unwrap_or_default(), text.get(dot + 1..).unwrap_or_default());
            let Some((position, node)) = self.find(suffix, hash(suffix)) else {
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

    fn find(&self, text: &str, hash: u32) -> Option<(u32, &Node)> {
        let position = self.probe(text, hash).ok()?;
        Some((position, self.nodes.get(position)?))
    }

    /// The node of a text, or the slot where it would stand. There are always empty slots.
    #[inline(always)]
    fn probe(&self, text: &str, hash: u32) -> Result<u32, usize> {
        let tag = hash >> NODE_BITS;
        let mut slot = self.first_slot(hash);
        loop {
            let content = self.slots.get(slot).copied().unwrap_or_default();
            if content == 0 {
                return Err(slot);
            }
            if content >> NODE_BITS == tag {
                let position = (content & (MAX_NODES + 1)) - 1;
                let node = self.nodes.get(position);
                if node.is_some_and(|node| node.hash == hash && self.texts.bytes(node.text) == text.as_bytes()) {
                    return Ok(position);
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The node of a literal text, which is added if it is new.
    fn node(&mut self, text: &str) -> Option<u32> {
        if (self.nodes.len() as usize + 1) * 8 > self.slots.len() * 7 {
            self.grow(self.slots.len() * 2);
        }
        let hash = hash(text);
        let slot = match self.probe(text, hash) {
            Ok(position) => return Some(position),
            Err(slot) => slot,
        };
        if self.nodes.len() >= MAX_NODES {
            return None;
        }
        let text = self.texts.push(text);
        let position = self.nodes.push(Node { text, hash, exact: Owners::NONE, suffix: Owners::NONE });
        self.fill(slot, hash, position);
        Some(position)
    }

    fn grow(&mut self, length: usize) {
        let length = length.max(16);
        self.slots = Vec::new(); // freed before the larger one is asked for
        self.slots = vec![0; length];
        for position in 0..self.nodes.len() {
            let hash = self.nodes.get(position).map_or(0, |node| node.hash);
            let mut slot = self.first_slot(hash);
            while self.slots.get(slot).is_some_and(|content| *content != 0) {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.fill(slot, hash, position);
        }
    }

    fn fill(&mut self, slot: usize, hash: u32, position: u32) {
        if let Some(slot) = self.slots.get_mut(slot) {
            *slot = hash >> NODE_BITS << NODE_BITS | (position + 1);
        }
    }

    /// Of other bits of the hash than the tag, or slots close by would have the same.
    fn first_slot(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }
}

/// Eight bytes at a time. The keys are the operator's, so nobody can choose them to collide; whoever chooses the name that
/// is looked up can only choose how soon it is not found.
#[inline(always)]
fn hash(text: &str) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
    let bytes = text.as_bytes();
    let mut hash = (bytes.len() as u64).wrapping_mul(FACTOR);
    let mut add = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    for word in bytes.as_chunks::<8>().0 {
        add(u64::from_le_bytes(*word));
    }
    // What is left over, together with some bytes that were read already.
    if let Some(last) = bytes.last_chunk::<8>() {
        add(u64::from_le_bytes(*last));
    } else {
        add(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    // The upper half depends on every byte; the lower half does not.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(FACTOR);
    u32::try_from(mixed >> 32).unwrap_or_default()
}
