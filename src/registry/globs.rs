//! Finds the globs that match a name without trying them all.
//!
//! Globs stand in buckets by their literal suffix, and within a bucket by the literal text before their first `*` and
//! after their last one. The lengths of those two texts, a glob's shape, are few in real lists (`api-*` and `*-eu` are
//! two), so a look-up makes one probe for each shape of a bucket and tries only globs that agree at both ends.

use std::hash::{BuildHasher, Hasher};

use hashbrown::{DefaultHashBuilder, HashMap};

use super::owners::Owners;
use super::pages::Texts;
use crate::pattern::matches_inner;

#[derive(Debug, Default)]
pub(crate) struct Globs {
    globs: Vec<GlobRow>,
    /// The shapes in the bucket of a suffix's node, packed.
    buckets: HashMap<u64, Vec<u32>>,
    /// By node, head and tail. A collision costs a trial: what is found here is matched in full.
    heads: HashMap<u64, Vec<u32>>,
    hasher: DefaultHashBuilder,
}

#[derive(Debug)]
pub(crate) struct GlobRow {
    /// The node of the literal suffix.
    pub(crate) suffix: u32,
    /// What stands before it, in the registry's texts.
    inner: u32,
    pub(crate) owners: Owners,
}

/// The lengths of a glob's literal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    head: usize,
    tail: usize,
}

impl Shape {
    fn pack(self) -> u32 {
        u32::try_from(self.head << 8 | self.tail).unwrap_or(u32::MAX)
    }

    fn unpack(packed: u32) -> Self {
        Shape { head: packed as usize >> 8, tail: packed as usize & 0xff }
    }
}

impl Globs {
    pub(crate) fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    pub(crate) fn row(&self, glob: u32) -> Option<&GlobRow> {
        self.globs.get(glob as usize)
    }

    pub(crate) fn row_mut(&mut self, glob: u32) -> Option<&mut GlobRow> {
        self.globs.get_mut(glob as usize)
    }

    pub(crate) fn inner<'t>(&self, glob: u32, texts: &'t Texts) -> &'t str {
        self.row(glob).map(|row| texts.text(row.inner)).unwrap_or_default()
    }

    /// The number of the glob with this inner part, which is added if it is new.
    pub(crate) fn add(&mut self, suffix: u32, inner: &str, texts: &mut Texts) -> u32 {
        let (head, tail) = ends(inner);
        let key = self.key(suffix, head, tail);
        let known = self.heads.get(&key).into_iter().flatten().copied();
        let known = known
            .into_iter()
            .find(|glob| self.row(*glob).is_some_and(|row| row.suffix == suffix && texts.text(row.inner) == inner));
        if let Some(glob) = known {
            return glob;
        }
        let glob = u32::try_from(self.globs.len()).unwrap_or(u32::MAX);
        self.globs.push(GlobRow { suffix, inner: texts.push(inner), owners: Owners::NONE });
        self.heads.entry(key).or_default().push(glob);
        let shape = Shape { head: head.len(), tail: tail.len() }.pack();
        let shapes = self.buckets.entry(u64::from(suffix)).or_default();
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
        glob
    }

    /// Calls `found` with each glob under `suffix` that matches `inner`, the part of a name before that suffix.
    pub(crate) fn each_match(&self, suffix: u32, inner: &str, texts: &Texts, mut found: impl FnMut(u32, Owners)) {
        for shape in self.buckets.get(&u64::from(suffix)).into_iter().flatten() {
            let Shape { head, tail } = Shape::unpack(*shape);
            let Some(tail_start) = inner.len().checked_sub(tail).filter(|start| *start >= head) else {
                continue;
            };
            let (Some(head), Some(tail)) = (inner.get(..head), inner.get(tail_start..)) else {
                continue;
            };
            for glob in self.heads.get(&self.key(suffix, head, tail)).into_iter().flatten() {
                let Some(row) = self.row(*glob) else {
                    continue;
                };
                if row.suffix == suffix && matches_inner(texts.text(row.inner), inner) {
                    found(*glob, row.owners);
                }
            }
        }
    }

    fn key(&self, suffix: u32, head: &str, tail: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(suffix);
        hasher.write(head.as_bytes());
        hasher.write_u8(b'*');
        hasher.write(tail.as_bytes());
        hasher.finish()
    }
}

/// The literal text before the first `*` and after the last.
fn ends(inner: &str) -> (&str, &str) {
    let head = inner.find('*').and_then(|star| inner.get(..star)).unwrap_or(inner);
    let tail = inner.rfind('*').and_then(|star| inner.get(star + 1..)).unwrap_or_default();
    (head, tail)
}
