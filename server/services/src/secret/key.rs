//! A key for XChaCha20-Poly1305. It binds each sealed text to a place, and the text opens only with the name of that
//! place.

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
const BYTES: usize = 32;
/// Bytes of a nonce: long enough to be random (draft-irtf-cfrg-xchacha-03, 2.1).
const NONCE: usize = 24;
/// Bytes of a key's id, which is public.
const ID: usize = 6;

/// Reads base64 with and without padding, because people paste both.
const fn lenient(alphabet: &alphabet::Alphabet) -> GeneralPurpose {
    GeneralPurpose::new(
        alphabet,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    )
}
const BASE64: [GeneralPurpose; 2] = [lenient(&alphabet::STANDARD), lenient(&alphabet::URL_SAFE)];

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoKey {
    /// The text is neither base64 nor hexadecimal.
    #[error("is neither base64 nor hexadecimal")]
    Form,
    /// The text holds another number of bytes.
    #[error("has {0} bytes")]
    Length(usize),
}

/// A sealed text does not open: it was changed, cut, moved from another place, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the sealed text does not open: it is damaged, or was moved from another place")]
pub struct Damaged;

/// A key. Its bytes are wiped from memory when it is dropped.
pub struct Key {
    id: String,
    cipher: XChaCha20Poly1305,
    /// Key that signs links. It is derived separately, so that no signature reveals anything about sealed texts.
    links: Zeroizing<[u8; BYTES]>,
}

/// Shows the id only, so that keys stay out of logs.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Reads 32 bytes in base64 or hexadecimal.
    ///
    /// # Errors
    /// If the text is no key. The error never repeats the text.
    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let bytes = decode(text).ok_or(NoKey::Form)?;
        let fixed: &[u8; BYTES] = bytes
            .as_slice()
            .try_into()
            .map_err(|_| NoKey::Length(bytes.len()))?;
        Ok(Self::of(fixed))
    }

    fn of(bytes: &[u8; BYTES]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"deadbeat key id")
            .chain_update(bytes)
            .finalize();
        let links = Sha256::new()
            .chain_update(b"deadbeat links")
            .chain_update(bytes)
            .finalize();
        Self {
            id: hex(&digest[..ID]),
            cipher: XChaCha20Poly1305::new(bytes.into()),
            links: Zeroizing::new(links.into()),
        }
    }

    /// Makes a new key. Returns its base64, which [`Key::parse`] reads.
    ///
    /// # Panics
    /// If the operating system has no randomness: nothing safe can be done then.
    #[must_use]
    pub fn generate() -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0_u8; BYTES]);
        OsRng
            .try_fill_bytes(bytes.as_mut_slice())
            .expect("the operating system gives randomness");
        Zeroizing::new(STANDARD.encode(bytes.as_slice()))
    }

    /// Returns the key's public name: 12 hexadecimal digits of a digest of the key.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a text. The result opens only with the same `bound_to`.
    ///
    /// # Panics
    /// If the operating system has no randomness: nothing safe can be done then.
    #[must_use]
    pub fn seal(&self, text: &str, bound_to: &str) -> String {
        let mut nonce = [0_u8; NONCE];
        OsRng
            .try_fill_bytes(&mut nonce)
            .expect("the operating system gives randomness");
        let payload = Payload {
            msg: text.as_bytes(),
            aad: bound_to.as_bytes(),
        };
        let sealed = self
            .cipher
            .encrypt(&XNonce::from(nonce), payload)
            .expect("a text is shorter than the 256 GB that the cipher takes");
        URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())
    }

    /// Opens a text that [`Key::seal`] sealed.
    ///
    /// # Errors
    /// If the text does not open.
    pub fn open(&self, sealed: &str, bound_to: &str) -> Result<Zeroizing<String>, Damaged> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| Damaged)?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE>().ok_or(Damaged)?;
        let payload = Payload {
            msg: rest,
            aad: bound_to.as_bytes(),
        };
        let text = self
            .cipher
            .decrypt(&XNonce::from(*nonce), payload)
            .map_err(|_| Damaged)?;
        String::from_utf8(text).map(Zeroizing::new).map_err(|_| Damaged)
    }
}

impl Key {
    /// Returns the signature of a link: 64 hexadecimal digits of HMAC-SHA256.
    #[must_use]
    pub fn sign(&self, link: &str) -> String {
        hex(&self.mac(link).finalize().into_bytes())
    }

    /// True if [`Key::sign`] made the signature. The comparison takes constant time.
    #[must_use]
    pub fn is_signature(&self, link: &str, signature: &str) -> bool {
        let digits = signature.as_bytes();
        if digits.len() != 2 * BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.is_some_and(|bytes| self.mac(link).verify_slice(&bytes).is_ok())
    }

    /// Whether the digits are the first half of what [`Key::sign`] made. Takes as long for wrong ones.
    #[must_use]
    pub fn begins_signature(&self, link: &str, half: &str) -> bool {
        let digits = half.as_bytes();
        if digits.len() != BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return false;
        }
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        bytes.is_some_and(|bytes| self.mac(link).verify_truncated_left(&bytes).is_ok())
    }

    fn mac(&self, link: &str) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.links.as_slice()).expect("HMAC takes keys of any length");
        mac.update(link.as_bytes());
        mac
    }
}

/// Reads hexadecimal digits, or base64. A key in base64 has 43 or 44 characters, so a text of such a length is never
/// read as hexadecimal.
fn decode(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = text.as_bytes();
    let is_hex = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    if is_hex && digits.len() != 44 {
        let bytes: Option<Vec<u8>> = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        return bytes.map(Zeroizing::new);
    }
    BASE64
        .iter()
        .find_map(|engine| engine.decode(text).ok())
        .map(Zeroizing::new)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn a_key_is_32_bytes_in_base64_or_hexadecimal() {
        let key = Key::parse(HEX).unwrap();
        for same in [
            HEX.to_uppercase(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".to_owned(),
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned(),
        ] {
            assert_eq!(Key::parse(&same).unwrap().id(), key.id(), "{same}");
        }
        let url_safe = "_-7dzLuqmYh3ZlVEMyIRAP_u3cy7qpmId2ZVRDMiEQA";
        assert_eq!(
            Key::parse(url_safe).unwrap().id(),
            Key::parse(&url_safe.replace('_', "/").replace('-', "+"))
                .unwrap()
                .id()
        );
        assert_eq!(key.id().len(), 12);
        assert!(!format!("{key:?}").contains("0102"), "{key:?}");
        for (wrong, fault) in [
            (&HEX[..62], NoKey::Length(31)),
            ("AAECAwQFBgcICQoLDA0ODw==", NoKey::Length(16)),
            ("", NoKey::Length(0)),
            ("hunter2!", NoKey::Form),
            ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8= ", NoKey::Form),
        ] {
            assert_eq!(Key::parse(wrong).unwrap_err(), fault, "{wrong}");
        }
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_with_its_key_only() {
        let key = Key::parse(&Key::generate()).unwrap();
        let other = Key::parse(&Key::generate()).unwrap();
        let sealed = key.seal("https://hooks.example.org/secret", "here");

        assert_eq!(
            key.open(&sealed, "here").unwrap().as_str(),
            "https://hooks.example.org/secret"
        );
        assert_eq!(key.open(&sealed, "there"), Err(Damaged));
        assert_eq!(other.open(&sealed, "here"), Err(Damaged));
        assert_ne!(
            key.seal("https://hooks.example.org/secret", "here"),
            sealed,
            "a new nonce each time"
        );
        assert!(!sealed.contains("secret"));
    }

    #[test]
    fn what_was_cut_or_changed_does_not_open() {
        let key = Key::parse(HEX).unwrap();
        let sealed = key.seal("a secret", "here");

        for length in 0..sealed.len() {
            assert_eq!(key.open(&sealed[..length], "here"), Err(Damaged), "{length}");
        }
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(key.open(&changed, "here"), Err(Damaged), "{at}");
        }
    }

    /// The test vector of draft-irtf-cfrg-xchacha-03, A.3.1: another implementation can open the texts of the database.
    #[test]
    fn the_cipher_is_that_of_the_draft() {
        let bytes: [u8; 32] = std::array::from_fn(|at| 0x80 + u8::try_from(at).unwrap());
        let nonce: [u8; 24] = std::array::from_fn(|at| 0x40 + u8::try_from(at).unwrap());
        let aad = [
            0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7,
        ];
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";

        let sealed = Key::of(&bytes)
            .cipher
            .encrypt(&XNonce::from(nonce), Payload { msg: text, aad: &aad })
            .unwrap();

        let (begin, tag) = (hex(&sealed[..16]), hex(&sealed[sealed.len() - 16..]));
        assert_eq!(
            (begin.as_str(), tag.as_str()),
            (
                "bd6d179d3e83d43b9576579493c0e939",
                "c0875924c1c7987947deafd8780acf49"
            )
        );
    }
}
