//! Says a thing once in a while: log lines that a busy client would repeat without end.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};

/// How long a thing that was said is not said again, in seconds.
pub const INTERVAL: u64 = 300;

/// The most distinct things that are remembered. While that many are, new ones are not said.
pub const MAX_SUBJECTS: usize = 1000;

/// Whether a thing is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// Say it.
    Yes,
    /// Say nothing.
    No,
    /// Say that too many things happen for all to be said; once in [`INTERVAL`].
    TooMany,
}

/// Remembers what was said, by hash: two subjects with the same hash pass for one, which costs a line at worst.
#[derive(Debug, Default)]
pub struct Quiet {
    said: HashMap<u64, u64>,
    hasher: DefaultHashBuilder,
    /// When the table was last searched for what is old: at most once a second, or made-up subjects would cost much.
    cleared: u64,
    /// When [`Say::TooMany`] was last said.
    too_many: Option<u64>,
}

impl Quiet {
    /// Whether to say something about `subject` at `now`, in seconds since some beginning: if it was not said within
    /// [`INTERVAL`] before. If so, it counts as said now.
    pub fn say(&mut self, subject: impl Hash, now: u64) -> Say {
        let is_recent = |said: u64| now.saturating_sub(said) < INTERVAL;
        let subject = self.hasher.hash_one(subject);
        if self.said.get(&subject).is_some_and(|said| is_recent(*said)) {
            return Say::No;
        }
        if self.said.len() >= MAX_SUBJECTS && !self.said.contains_key(&subject) {
            if self.cleared != now {
                self.cleared = now;
                self.said.retain(|_, said| is_recent(*said));
            }
            if self.said.len() >= MAX_SUBJECTS {
                if self.too_many.is_some_and(is_recent) {
                    return Say::No;
                }
                self.too_many = Some(now);
                return Say::TooMany;
            }
        }
        self.said.insert(subject, now);
        Say::Yes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_thing_once_in_an_interval() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.say("a", 1000), Say::Yes);
        assert_eq!(quiet.say("b", 1000), Say::Yes);
        assert_eq!(quiet.say("a", 1000 + INTERVAL - 1), Say::No);
        assert_eq!(quiet.say("a", 1000 + INTERVAL), Say::Yes);
        assert_eq!(quiet.say("a", 1000 + INTERVAL), Say::No);
    }

    #[test]
    fn remembers_a_bounded_number_and_says_so_once() {
        let mut quiet = Quiet::default();
        let answers: Vec<Say> = (0..2 * MAX_SUBJECTS).map(|subject| quiet.say(subject, 1000)).collect();
        let count = |say: Say| answers.iter().filter(|answer| **answer == say).count();
        assert_eq!((count(Say::Yes), count(Say::TooMany)), (MAX_SUBJECTS, 1));
        assert_eq!(quiet.say("later", 1000 + INTERVAL), Say::Yes);
        assert!(quiet.said.len() <= MAX_SUBJECTS);
    }
}
