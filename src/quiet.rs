//! Says a thing once in a while: log lines that a busy client would repeat without end.

use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};

/// How long a thing that was said is not said again, in seconds.
pub const INTERVAL: u64 = 300;

/// The most distinct things that are remembered. While that many are, new ones are not said.
pub const MAX_SUBJECTS: usize = 1000;

/// Remembers what was said, by hash: two subjects with the same hash pass for one, which costs a line at worst.
#[derive(Debug, Default)]
pub struct Quiet {
    said: HashMap<u64, u64>,
    hasher: DefaultHashBuilder,
}

impl Quiet {
    /// Whether `subject` was not said within [`INTERVAL`] before `now`, in seconds since some beginning. If so, it counts
    /// as said now.
    pub fn may_say(&mut self, subject: impl Hash, now: u64) -> bool {
        let subject = self.hasher.hash_one(subject);
        if let Some(last) = self.said.get(&subject)
            && now.saturating_sub(*last) < INTERVAL
        {
            return false;
        }
        if self.said.len() >= MAX_SUBJECTS && !self.said.contains_key(&subject) {
            self.said.retain(|_, last| now.saturating_sub(*last) < INTERVAL);
            if self.said.len() >= MAX_SUBJECTS {
                return false;
            }
        }
        self.said.insert(subject, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_each_thing_once_in_an_interval() {
        let mut quiet = Quiet::default();
        assert!(quiet.may_say("a", 1000));
        assert!(quiet.may_say("b", 1000));
        assert!(!quiet.may_say("a", 1000 + INTERVAL - 1));
        assert!(quiet.may_say("a", 1000 + INTERVAL));
        assert!(!quiet.may_say("a", 1000 + INTERVAL));
    }

    #[test]
    fn remembers_a_bounded_number() {
        let mut quiet = Quiet::default();
        let said = (0..2 * MAX_SUBJECTS).filter(|subject| quiet.may_say(subject, 1000)).count();
        assert_eq!(said, MAX_SUBJECTS);
        assert!(quiet.may_say("later", 1000 + INTERVAL));
        assert!(quiet.said.len() <= MAX_SUBJECTS);
    }
}
