//! Join tokens in Docker's shape: `SWMTKN-1-<digest of the root certificate>-<secret>`.
//!
//! The digest lets a joining node recognise the cluster before it shows the secret to anybody; the
//! secret is an HMAC of role and generation under the cluster's token key, so tokens can be shown
//! again and are rotated by counting (docs/adr/0009).

use super::authority;
use crate::domain::Cluster;
use crate::domain::node::Role;
use crate::env::seal;

const PREFIX: &str = "SWMTKN-1-";
/// 36^50 > 2^256.
const DIGEST_LEN: usize = 50;
/// 36^25 > 2^128.
const SECRET_LEN: usize = 25;
const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The parts of a join token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the root certificate.
    pub digest: [u8; 32],
    secret: [u8; 16],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}…)", self.fingerprint().get(..8).unwrap_or_default())
    }
}

impl Token {
    /// The digest as the token spells it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        encode(&self.digest, DIGEST_LEN)
    }
}

/// Why a token does not admit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token.
    #[error(
        "invalid join token: it should look like {PREFIX}<50 characters>-<25 characters>, of 0-9 and a-z; copy it whole from `swarm join-token worker` or `swarm join-token manager` on a manager"
    )]
    Malformed,
    /// It is of another cluster.
    #[error(
        "invalid join token: remote CA does not match fingerprint. Expected: {expected}; the swarm at this address has {actual}: the token is of another swarm or from before this swarm's root certificate was rotated (a manager shows the current one with `swarm join-token worker` or `swarm join-token manager`), or something between here and the manager is not what it claims to be"
    )]
    OtherCluster {
        /// The digest in the token.
        expected: String,
        /// The digest of the root that was found.
        actual: String,
    },
    /// It is of this cluster, but not one of its two tokens (any more).
    #[error(
        "invalid join token: it was rotated or mistyped; ask a manager for the current one with `swarm join-token worker` or `swarm join-token manager`"
    )]
    Unknown,
    /// The cluster's own root cannot be read.
    #[error("the swarm cannot check join tokens: {0}")]
    Authority(String),
}

/// The cluster's current token for a role.
///
/// # Errors
/// When the cluster's root certificate is damaged.
pub fn make(cluster: &Cluster, role: Role) -> Result<String, TokenError> {
    let digest = digest_of(&cluster.authority.root_pem)?;
    let secret = secret(cluster, role);
    Ok(format!("{PREFIX}{}-{}", encode(&digest, DIGEST_LEN), encode(&secret, SECRET_LEN)))
}

/// Takes a token apart.
///
/// # Errors
/// [`TokenError::Malformed`].
pub fn parse(text: &str) -> Result<Token, TokenError> {
    let (digest, secret) = text
        .trim()
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .ok_or(TokenError::Malformed)?;
    let digest = decode::<32>(digest, DIGEST_LEN).ok_or(TokenError::Malformed)?;
    let secret = decode::<16>(secret, SECRET_LEN).ok_or(TokenError::Malformed)?;
    Ok(Token { digest, secret })
}

/// Which role a token admits to.
///
/// # Errors
/// When it admits to none.
pub fn verify(cluster: &Cluster, text: &str) -> Result<Role, TokenError> {
    let token = parse(text)?;
    check_digest(&token, &cluster.authority.root_pem)?;
    let manager = seal::same(&secret(cluster, Role::Manager), &token.secret);
    let worker = seal::same(&secret(cluster, Role::Worker), &token.secret);
    match (manager, worker) {
        (true, _) => Ok(Role::Manager),
        (false, true) => Ok(Role::Worker),
        (false, false) => Err(TokenError::Unknown),
    }
}

/// Whether a root certificate is the one that a token names.
///
/// # Errors
/// [`TokenError::OtherCluster`] when it is not.
pub fn check_digest(token: &Token, root_pem: &str) -> Result<(), TokenError> {
    let digest = digest_of(root_pem)?;
    if digest == token.digest {
        return Ok(());
    }
    let actual = encode(&digest, DIGEST_LEN);
    Err(TokenError::OtherCluster { expected: token.fingerprint(), actual })
}

fn digest_of(root_pem: &str) -> Result<[u8; 32], TokenError> {
    authority::digest(root_pem).map_err(|error| TokenError::Authority(error.to_string()))
}

fn secret(cluster: &Cluster, role: Role) -> [u8; 16] {
    let generation = match role {
        Role::Worker => cluster.worker_token,
        Role::Manager => cluster.manager_token,
    };
    let message = format!("join token\0{}\0{generation}", role.as_str());
    let whole = seal::hmac(cluster.token_key.expose(), message.as_bytes());
    let mut secret = [0; 16];
    secret.copy_from_slice(&whole[..16]);
    secret
}

/// Bytes, as a big-endian number, in base 36, padded with zeros.
fn encode(bytes: &[u8], length: usize) -> String {
    let mut rest = bytes.to_vec();
    let mut text = vec![b'0'; length];
    for place in text.iter_mut().rev() {
        let mut remainder = 0u32;
        for byte in &mut rest {
            let value = remainder << 8 | u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or_default();
            remainder = value % 36;
        }
        *place = DIGITS[usize::try_from(remainder).unwrap_or_default()];
    }
    String::from_utf8(text).unwrap_or_default()
}

fn decode<const N: usize>(text: &str, length: usize) -> Option<[u8; N]> {
    if text.len() != length {
        return None;
    }
    let mut bytes = [0u8; N];
    for character in text.bytes() {
        let digit = DIGITS.iter().position(|d| *d == character)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(bytes)
}
