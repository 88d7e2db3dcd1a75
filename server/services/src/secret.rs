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

/// Returns a new key of a scope: its prefix, 43 random characters (256 bits), and a checksum of 6 characters.
///
/// The checksum lets a scanner of secrets tell a key from other text without asking the server. The server does not check it: keys of older versions
/// have none (ADR 048).
#[must_use]
pub fn new_key(scope: Scope) -> String {
    let mut key = format!("{}{}", scope.prefix(), random_text(43));
    let sum = checksum(&key);
    key.push_str(&sum);
    key
}

/// Returns the CRC-32 (IEEE) of a text in base 62 over `0-9A-Za-z`, as 6 digits, the highest first.
#[must_use]
pub fn checksum(text: &str) -> String {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [0_u8; 6];
    for digit in digits.iter_mut().rev() {
        // 62^6 is greater than 2^32, so nothing is left at the end.
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

/// Returns the SHA-256 digest of a key, which is stored instead of the key. A slow hash adds nothing to 256 bits of
/// entropy (ADR 010).
#[must_use]
pub fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_with_the_checksum_of_the_rest() {
        for scope in Scope::ALL {
            let key = new_key(scope);
            let (rest, sum) = key.split_at(47);
            assert!(key.len() == 53 && rest.starts_with(scope.prefix()), "{key}");
            assert_eq!(checksum(rest), sum);
            assert!(deadbeat_domain::people::key::is_plausible(&key));
        }
        // CRC-32 of "123456789" is 0xCBF43926 (RFC 3385), which is 3,421,780,262.
        assert_eq!(checksum("123456789"), "3jZRME");
    }
}
