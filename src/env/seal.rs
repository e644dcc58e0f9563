//! Sealing and digests: the only file that names `ring`.
//!
//! What lies on a manager's disk is sealed with ChaCha20-Poly1305, so that a stolen disk gives no
//! secrets away and a flipped bit is found. Keys are not kept, made or rotated here.

use std::fmt;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::{digest, hmac, pbkdf2};

use super::Entropy;

/// Bytes that sealing adds: a nonce of 12 and a tag of 16.
pub const OVERHEAD: usize = aead::NONCE_LEN + 16;

/// Sealed bytes that cannot be opened: another key, another purpose, or damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sealed data cannot be opened: it is damaged, or was sealed with another key")]
pub struct Unopenable;

/// A key that seals and opens.
///
/// Nonces are random. 96 bits of them allow 2^32 messages per key at a risk of 2^-32 of meeting one
/// twice; what seals more often derives a key per chapter with [`SealKey::derive`].
#[derive(Clone)]
pub struct SealKey {
    key: LessSafeKey,
    derive: hmac::Key,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl SealKey {
    /// A key made of 32 secret bytes.
    #[must_use]
    pub fn new(bytes: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "the length is the algorithm's, by type")]
        let unbound = UnboundKey::new(&aead::CHACHA20_POLY1305, bytes).expect("32 bytes are a key");
        Self { key: LessSafeKey::new(unbound), derive: hmac::Key::new(hmac::HMAC_SHA256, bytes) }
    }

    /// Another key, bound to a purpose, that says nothing about this one.
    #[must_use]
    pub fn derive(&self, purpose: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hmac::sign(&self.derive, purpose).as_ref());
        Self::new(&bytes)
    }

    /// Seals: `nonce || ciphertext || tag`. `purpose` must be given again to open.
    #[must_use]
    pub fn seal(&self, entropy: &dyn Entropy, purpose: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; aead::NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        #[expect(clippy::expect_used, reason = "fails only beyond 256 GiB")]
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose),
                &mut sealed[aead::NONCE_LEN..],
            )
            .expect("a message is shorter than the algorithm's limit");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`Self::seal`] made.
    ///
    /// # Errors
    /// [`Unopenable`] when a single bit, the key or the purpose differs.
    pub fn open(&self, purpose: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unopenable> {
        let (nonce, rest) = sealed.split_at_checked(aead::NONCE_LEN).ok_or(Unopenable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopenable)?;
        let mut plain = rest.to_vec();
        let length = self
            .key
            .open_in_place(nonce, Aad::from(purpose), &mut plain)
            .map_err(|_| Unopenable)?
            .len();
        plain.truncate(length);
        Ok(plain)
    }
}

/// SHA-256 of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Hasher::new();
    hasher.update(bytes);
    hasher.finish()
}

/// SHA-256 of bytes that come in pieces.
#[derive(Clone)]
pub struct Hasher {
    context: digest::Context,
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { context: digest::Context::new(&digest::SHA256) }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.context.finish().as_ref());
        out
    }
}

/// HMAC-SHA-256 of a message under a key of any length.
#[must_use]
pub fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, message).as_ref());
    out
}

/// A key made of a passphrase: PBKDF2-HMAC-SHA-256, which makes guessing slow. No rounds count as
/// one.
#[must_use]
pub fn stretch(passphrase: &[u8], salt: &[u8], rounds: u32) -> [u8; 32] {
    let rounds = std::num::NonZeroU32::new(rounds).unwrap_or(std::num::NonZeroU32::MIN);
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase, &mut key);
    key
}

/// Whether two byte strings are the same, in a time that does not depend on where they differ (it
/// may depend on their lengths).
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    // Comparing MACs under a key that nobody can know beforehand hides where the inputs differ.
    let mut key = [0; 32];
    super::OsEntropy.fill(&mut key);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::verify(&key, right, hmac::sign(&key, left).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::OsEntropy;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_purpose_only() {
        let key = SealKey::new(&[7; 32]);
        let sealed = key.seal(&OsEntropy, b"log", b"a secret");
        assert_eq!(sealed.len(), 8 + OVERHEAD);
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        assert_eq!(key.open(b"log", &sealed), Ok(b"a secret".to_vec()));
        assert_eq!(key.open(b"snapshot", &sealed), Err(Unopenable));
        assert_eq!(SealKey::new(&[8; 32]).open(b"log", &sealed), Err(Unopenable));
        assert_eq!(key.derive(b"x").open(b"log", &sealed), Err(Unopenable));
        assert_ne!(sealed, key.seal(&OsEntropy, b"log", b"a secret"));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let key = SealKey::new(&[7; 32]);
        let sealed = key.seal(&OsEntropy, b"log", b"four");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open(b"log", &damaged), Err(Unopenable), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert_eq!(key.open(b"log", &sealed[..length]), Err(Unopenable));
        }
    }

    #[test]
    fn digests_are_the_published_ones() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&digest(b"abc")), abc);
        let mut hasher = Hasher::new();
        hasher.update(b"a");
        hasher.update(b"bc");
        assert_eq!(hex(&hasher.finish()), abc);
        // RFC 4231, test case 2.
        let mac = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hex(&hmac(b"Jefe", b"what do ya want for nothing?")), mac);
    }

    #[test]
    fn passphrases_are_stretched_as_published() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        // RFC 7914, section 11.
        let key = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
        assert_eq!(hex(&stretch(b"passwd", b"salt", 1)), key);
    }

    #[test]
    fn comparison_tells_same_from_different() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab"));
    }
}
