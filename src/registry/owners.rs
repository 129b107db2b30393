//! Which entries list a pattern: nearly always one, so one costs no more than its number.

use std::iter;

/// The entries of one pattern, in the order of the configuration. The list itself is kept in [`Chains`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners(u32);

/// The links of the patterns that several entries list.
#[derive(Debug, Default)]
pub(crate) struct Chains(Vec<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    entry: u32,
    /// The next link; the last one leads back to the first.
    next: u32,
}

/// What an [`Owners`] holds: nothing (0), one entry (even), or the last link of a ring (odd).
enum Kind {
    None,
    One(u32),
    Ring(u32),
}

impl Owners {
    pub(crate) const NONE: Owners = Owners(0);

    pub(crate) fn is_none(self) -> bool {
        self == Owners::NONE
    }

    fn kind(self) -> Kind {
        match self.0 {
            0 => Kind::None,
            even if even & 1 == 0 => Kind::One((even >> 1) - 1),
            odd => Kind::Ring(odd >> 1),
        }
    }
}

impl Chains {
    /// Adds an entry; the same entry twice in a row is added once.
    pub(crate) fn add(&mut self, owners: &mut Owners, entry: u32) {
        match owners.kind() {
            Kind::None => *owners = Owners((entry + 1) << 1),
            Kind::One(first) if first == entry => {}
            Kind::One(first) => {
                let position = self.next_position();
                self.0.push(Link { entry: first, next: position + 1 });
                self.0.push(Link { entry, next: position });
                *owners = Owners((position + 1) << 1 | 1);
            }
            Kind::Ring(last) => {
                let position = self.next_position();
                if let Some(link) = self.0.get_mut(last as usize)
                    && link.entry != entry
                {
                    let first = link.next;
                    link.next = position;
                    self.0.push(Link { entry, next: first });
                    *owners = Owners(position << 1 | 1);
                }
            }
        }
    }

    /// The entries, in the order in which they were added.
    pub(crate) fn entries(&self, owners: Owners) -> impl Iterator<Item = u32> {
        let (mut one, last) = match owners.kind() {
            Kind::None => (None, None),
            Kind::One(entry) => (Some(entry), None),
            Kind::Ring(last) => (None, Some(last)),
        };
        let mut next = last.and_then(|last| self.0.get(last as usize)).map(|link| link.next);
        iter::from_fn(move || {
            if one.is_some() {
                return one.take();
            }
            let position = next?;
            let link = self.0.get(position as usize)?;
            next = if Some(position) == last { None } else { Some(link.next) };
            Some(link.entry)
        })
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    fn next_position(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX >> 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_the_entries() {
        let mut chains = Chains::default();
        let (mut a, mut b) = (Owners::NONE, Owners::NONE);
        for entry in 0..5 {
            chains.add(&mut a, entry);
            chains.add(&mut a, entry);
            if entry % 2 == 1 {
                chains.add(&mut b, entry);
            }
        }
        assert_eq!(chains.entries(a).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert_eq!(chains.entries(b).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(chains.entries(Owners::NONE).count(), 0);
    }
}
