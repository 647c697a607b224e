//! Numbers of profiles.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::numbers::{Numbered, Numbers};
use crate::compile::Profile;

/// The numbers of all profiles.
#[derive(Debug)]
pub(super) struct ProfileNumbers {
    numbers: Numbers,
    by_profile: BTreeMap<Arc<Profile>, u32>,
}

impl Default for ProfileNumbers {
    fn default() -> Self {
        ProfileNumbers { numbers: Numbers::new(Numbered::Profile), by_profile: BTreeMap::new() }
    }
}

impl ProfileNumbers {
    /// Returns the number of a profile in the table.
    pub(super) fn get(&self, profile: &Profile) -> Option<u32> {
        self.by_profile.get(profile).copied()
    }

    /// Returns the profile with a number.
    pub(super) fn profile(&self, number: u32) -> Option<&Arc<Profile>> {
        self.by_profile.iter().find(|(_, of)| **of == number).map(|(profile, _)| profile)
    }

    /// Adds a profile and returns its number.
    pub(super) fn add(&mut self, profile: &Arc<Profile>) -> u32 {
        if let Some(number) = self.get(profile) {
            return number;
        }
        let number = self.numbers.take_for(&profile.name());
        self.by_profile.insert(Arc::clone(profile), number);
        number
    }

    /// Removes a profile and returns its number.
    pub(super) fn remove(&mut self, profile: &Profile) -> Option<u32> {
        let number = self.by_profile.remove(profile)?;
        self.numbers.release(number);
        Some(number)
    }
}
