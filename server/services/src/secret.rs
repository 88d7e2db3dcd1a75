//! Secrets of high entropy: how they are made, what is kept of them, and the keys that seal those which must be read again.

mod file;
pub mod key;
pub mod keyring;

use deadbeat_domain::people::key::Scope;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A random text over `0-9A-Za-z`: 5.95 bits a character.
///
/// # Panics
/// When the operating system has no randomness to give: nothing safe can be done then.
#[must_use]
pub fn random_text(length: usize) -> String {
    let mut text = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while text.len() < length {
        OsRng
            .try_fill_bytes(&mut bytes)
            .expect("the operating system gives randomness");
        // 62 × 4 = 248: bytes beyond would make the first letters likelier.
        for byte in bytes.iter().filter(|byte| **byte < 248) {
            if text.len() < length {
                text.push(char::from(ALPHABET[usize::from(byte % 62)]));
            }
        }
    }
    text
}

/// A new key of a scope: 43 random characters, 256 bits.
#[must_use]
pub fn new_key(scope: Scope) -> String {
    format!("{}{}", scope.prefix(), random_text(43))
}

/// What is kept of a key: SHA-256. A slow hash adds nothing to 256 bits of entropy (ADR 010).
#[must_use]
pub fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}
