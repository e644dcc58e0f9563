//! The key that opens the data of locked managers, and how it changes. What is sealed with it, and
//! where, is the daemon's business.

use std::fmt;
use std::str::FromStr;

use super::base64;
use super::cluster::EncryptionSpec;

const PREFIX: &str = "SWMKEY-1-";

/// A key that opens what managers keep on their disks. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct UnlockKey([u8; 32]);

/// A text that is no unlock key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an unlock key looks like {PREFIX}<43 characters>; a manager that is unlocked shows it with `swarm unlock-key`"
)]
pub struct NoUnlockKey;

impl UnlockKey {
    /// A key of 32 secret bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key of bytes from elsewhere; `None` unless there are 32.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, for those who seal with them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as people keep it (Docker's form: base 64 without padding).
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", base64::encode(&self.0).trim_end_matches('='))
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey(hidden)")
    }
}

impl FromStr for UnlockKey {
    type Err = NoUnlockKey;

    fn from_str(text: &str) -> Result<Self, NoUnlockKey> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(NoUnlockKey)?;
        let bytes = base64::decode(&format!("{digits}=")).map_err(|_| NoUnlockKey)?;
        Self::from_slice(&bytes).ok_or(NoUnlockKey)
    }
}

/// Whether managers lock themselves, and with which key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Autolock {
    /// Counts the changes of the key, so that no manager ever goes back to an older one.
    pub generation: u64,
    /// The key; `None` while managers do not lock themselves.
    pub key: Option<UnlockKey>,
}

/// Whether a key that would do is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays.
    Keep,
    /// Another one takes its place.
    Rotate,
}

impl Autolock {
    /// What comes of a user's wish, with a key that nobody has yet, should one be needed. Rotating
    /// a key that is not there changes nothing.
    #[must_use]
    pub fn wished(&self, wish: &EncryptionSpec, rotation: Rotation, fresh: UnlockKey) -> Self {
        let next = |key| Self { generation: self.generation + 1, key };
        match (wish.auto_lock_managers, &self.key, rotation) {
            (true, None, _) | (true, Some(_), Rotation::Rotate) => next(Some(fresh)),
            (false, Some(_), _) => next(None),
            (true, Some(_), Rotation::Keep) | (false, None, _) => self.clone(),
        }
    }

    /// This one, made of a state that may have been older, in the place of `current`: a key that
    /// was rotated meanwhile is not undone, and there is a key exactly while it is wished.
    #[must_use]
    pub fn over(&self, current: &Self, wish: &EncryptionSpec) -> Self {
        let next = |key: &Option<UnlockKey>| Self {
            generation: self.generation.max(current.generation + 1),
            key: key.clone(),
        };
        match (wish.auto_lock_managers, &self.key) {
            (false, _) if current.key.is_some() => next(&None),
            (true, Some(_)) if self.generation >= current.generation && self != current => {
                next(&self.key)
            }
            (true | false, _) => current.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ON: &EncryptionSpec = &EncryptionSpec { auto_lock_managers: true };
    const OFF: &EncryptionSpec = &EncryptionSpec { auto_lock_managers: false };

    #[test]
    fn a_key_is_spelt_and_read() {
        let key = UnlockKey::new([0xfb; 32]);
        let text = key.text();
        assert_eq!(text.len(), PREFIX.len() + 43);
        assert!(text.starts_with("SWMKEY-1-+/v7"), "{text}");
        assert_eq!(text.parse(), Ok(key.clone()));
        assert_eq!(format!(" {text}\n").parse(), Ok(key.clone()));
        for wrong in ["", "SWMKEY-1-", "SWMTKN-1-abc", &text[1..], &format!("{text}A"), &text[..50]]
        {
            assert_eq!(wrong.parse::<UnlockKey>(), Err(NoUnlockKey), "{wrong}");
        }
        assert!(!format!("{key:?}").contains("251"));
    }

    #[test]
    fn changes_at_the_same_moment_end_in_one_key_or_none() {
        let [first, second, third] = [1, 2, 3].map(|byte| UnlockKey::new([byte; 32]));
        let on = Autolock { generation: 4, key: Some(first) };
        let rotated = on.wished(ON, Rotation::Rotate, second);
        assert_eq!(rotated.over(&on, ON), rotated);
        assert_eq!(on.over(&rotated, ON), rotated, "another setting undoes no rotation");
        let again = on.wished(ON, Rotation::Rotate, third.clone()).over(&rotated, ON);
        assert_eq!(again, Autolock { generation: 6, key: Some(third.clone()) });
        let off = on.wished(OFF, Rotation::Keep, third);
        assert_eq!(off.over(&rotated, OFF), Autolock { generation: 6, key: None });
        assert_eq!(off.over(&off, OFF), off);
    }

    #[test]
    fn the_generation_counts_what_changes_the_key() {
        let [first, second] = [1, 2].map(|byte| UnlockKey::new([byte; 32]));
        let off = Autolock::default();
        assert_eq!(off.wished(OFF, Rotation::Rotate, first.clone()), off);
        let on = off.wished(ON, Rotation::Keep, first.clone());
        assert_eq!(on, Autolock { generation: 1, key: Some(first.clone()) });
        assert_eq!(on.wished(ON, Rotation::Keep, second.clone()), on);
        let rotated = on.wished(ON, Rotation::Rotate, second.clone());
        assert_eq!(rotated, Autolock { generation: 2, key: Some(second) });
        assert_eq!(
            rotated.wished(OFF, Rotation::Rotate, first),
            Autolock { generation: 3, key: None }
        );
    }
}
