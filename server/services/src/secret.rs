//! Secrets of high entropy: their generation, their digests, and the keys that seal secrets which the server must
//! read again.

mod file;
pub mod key;
pub mod keyring;

use deadbeat_domain::people::key::Scope;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Returns a random text over `0-9A-Za-z`: 5.95 bits a character.
///
/// # Panics
/// If the operating system has no randomness: nothing safe can be done then.
#[must_use]
pub fn random_text(length: usize) -> String {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        OsRng
            .try_fill_bytes(&mut bytes)
            .expect("the operating system gives randomness");
        // 62 × 4 = 248: bytes from 248 on would make the first 8 letters likelier.
        for byte in bytes.iter().filter(|byte| **byte < 248) {
            if text.len() < length {
                text.push(char::from(ALPHABET[usize::from(byte % 62)]));
            }
        }
    }
    text
}

/// Returns a new key of a scope: its prefix and 43 random characters, 256 bits.
#[must_use]
pub fn new_key(scope: Scope) -> String {
    format!("{}{}", scope.prefix(), random_text(43))
}

/// Returns the SHA-256 digest of a key, which is stored instead of the key. A slow hash adds nothing to 256 bits of
/// entropy (ADR 010).
#[must_use]
pub fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}
