//! Message encryption for Web Push (RFC 8291), which is one record of the coding `aes128gcm` (RFC 8188).
//!
//! ring does the cryptography: ECDH on P-256, HKDF with SHA-256, and AES-128-GCM. This file puts the inputs together.

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::error::Unspecified;
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Bytes of a point on P-256, uncompressed.
pub(super) const POINT: usize = 65;
/// Bytes of a subscription's authentication secret (RFC 8291, 3.2).
pub(super) const AUTH: usize = 16;
/// The most bytes of a message: push services need not accept more than 4,096 bytes (RFC 8030, 7.2), of which the
/// coding takes 103 (RFC 8291, 4).
pub(super) const MESSAGE_BYTES: usize = 3_993;

const SALT: usize = 16;
const CONTENT_KEY: usize = 16;
const NONCE: usize = 12;
const RECORD: u32 = 4_096;
/// Ends the last record (RFC 8188, 2).
const LAST_RECORD: u8 = 2;

/// The browser's part of a subscription.
#[derive(Clone, Copy)]
pub(super) struct Subscriber<'a> {
    /// The public key of the browser: an uncompressed point.
    pub(super) public: &'a [u8],
    /// The authentication secret.
    pub(super) auth: &'a [u8],
}

/// Encrypts a message of at most [`MESSAGE_BYTES`] for one subscription.
///
/// # Errors
/// If the subscription's public key is no point on P-256, or the operating system has no randomness.
pub(super) fn encrypt(message: &[u8], subscriber: Subscriber<'_>) -> Result<Vec<u8>, Unspecified> {
    let random = SystemRandom::new();
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &random)?;
    let public = private.compute_public_key()?;
    let mut salt = [0; SALT];
    random.fill(&mut salt)?;
    let peer = UnparsedPublicKey::new(&ECDH_P256, subscriber.public);
    agree_ephemeral(private, &peer, |shared| {
        seal(message, subscriber, public.as_ref(), salt, shared)
    })?
}

/// Encrypts with a known shared secret, salt and public key of this server (RFC 8291, 3.4 and 4).
fn seal(
    message: &[u8],
    subscriber: Subscriber<'_>,
    public: &[u8],
    salt: [u8; SALT],
    shared: &[u8],
) -> Result<Vec<u8>, Unspecified> {
    let input = input_key(subscriber, public, shared)?;
    let prk = Salt::new(HKDF_SHA256, &salt).extract(input.as_slice());
    let key: Zeroizing<[u8; CONTENT_KEY]> = expand(&prk, &[b"Content-Encoding: aes128gcm\0"])?;
    let nonce: Zeroizing<[u8; NONCE]> = expand(&prk, &[b"Content-Encoding: nonce\0"])?;
    let mut record = [message, &[LAST_RECORD]].concat();
    LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key.as_slice())?).seal_in_place_append_tag(
        Nonce::assume_unique_for_key(*nonce),
        Aad::empty(),
        &mut record,
    )?;
    let length = u8::try_from(public.len()).map_err(|_| Unspecified)?;
    Ok([&salt, &RECORD.to_be_bytes()[..], &[length], public, &record].concat())
}

/// Combines the shared secret and the authentication secret (RFC 8291, 3.3 and 3.4).
fn input_key(
    subscriber: Subscriber<'_>,
    public: &[u8],
    shared: &[u8],
) -> Result<Zeroizing<[u8; 32]>, Unspecified> {
    let prk = Salt::new(HKDF_SHA256, subscriber.auth).extract(shared);
    expand(&prk, &[b"WebPush: info\0", subscriber.public, public])
}

/// A number of bytes that HKDF derives.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &Prk, info: &[&[u8]]) -> Result<Zeroizing<[u8; N]>, Unspecified> {
    let mut key = Zeroizing::new([0; N]);
    prk.expand(info, Bytes(N))?.fill(key.as_mut_slice())?;
    Ok(key)
}

/// True if the bytes are a point on P-256 with which a message can be encrypted.
pub(super) fn is_point(bytes: &[u8]) -> bool {
    let agreed = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())
        .and_then(|private| agree_ephemeral(private, &UnparsedPublicKey::new(&ECDH_P256, bytes), |_| ()));
    bytes.len() == POINT && agreed.is_ok()
}

/// A browser, for tests: decrypts as RFC 8291 says, with keys that it made itself.
#[cfg(test)]
pub(super) mod browser {
    use super::*;

    /// The keys of one subscription. The private key agrees once, so a browser reads one message.
    pub(in super::super) struct Browser {
        private: EphemeralPrivateKey,
        pub(in super::super) public: Vec<u8>,
        pub(in super::super) auth: [u8; AUTH],
    }

    impl Browser {
        pub(in super::super) fn new() -> Self {
            let random = SystemRandom::new();
            let private = EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap();
            let mut auth = [0; AUTH];
            random.fill(&mut auth).unwrap();
            Self {
                public: private.compute_public_key().unwrap().as_ref().to_vec(),
                private,
                auth,
            }
        }

        pub(in super::super) fn subscriber(&self) -> Subscriber<'_> {
            Subscriber {
                public: &self.public,
                auth: &self.auth,
            }
        }

        /// Decrypts the body of a request. None: it is not for this browser, or was changed.
        pub(in super::super) fn decrypt(self, body: &[u8]) -> Option<Vec<u8>> {
            let (public, auth) = (self.public.clone(), self.auth);
            let sender = UnparsedPublicKey::new(&ECDH_P256, header(body).1.to_vec());
            agree_ephemeral(self.private, &sender, |shared| {
                let subscriber = Subscriber {
                    public: &public,
                    auth: &auth,
                };
                open(body, subscriber, shared)
            })
            .ok()?
        }
    }

    /// Splits a body into salt, public key of the sender, and ciphertext (RFC 8188, 2.1).
    fn header(body: &[u8]) -> (&[u8], &[u8], &[u8]) {
        let (salt, rest) = body.split_at(16);
        assert_eq!(rest[..4], 4_096_u32.to_be_bytes());
        let (public, record) = rest[5..].split_at(rest[4].into());
        (salt, public, record)
    }

    /// Decrypts with a known shared secret.
    pub(in super::super) fn open(body: &[u8], subscriber: Subscriber<'_>, shared: &[u8]) -> Option<Vec<u8>> {
        let (salt, public, record) = header(body);
        let derive = |prk: &Prk, info: &[&[u8]], length| {
            let mut key = vec![0; length];
            prk.expand(info, Bytes(length)).unwrap().fill(&mut key).unwrap();
            key
        };
        let prk = Salt::new(HKDF_SHA256, subscriber.auth).extract(shared);
        let input = derive(&prk, &[b"WebPush: info\0", subscriber.public, public], 32);
        let prk = Salt::new(HKDF_SHA256, salt).extract(&input);
        let key = derive(&prk, &[b"Content-Encoding: aes128gcm\0"], 16);
        let nonce = derive(&prk, &[b"Content-Encoding: nonce\0"], 12);
        let mut record = record.to_vec();
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let nonce = Nonce::try_assume_unique_for_key(&nonce).unwrap();
        let text = key.open_in_place(nonce, Aad::empty(), &mut record).ok()?;
        let end = text.iter().rposition(|&byte| byte != 0)?;
        (text[end] == LAST_RECORD).then(|| text[..end].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::browser::{Browser, open};
    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// RFC 8291, section 5 and appendix A.
    #[test]
    fn the_message_of_the_rfc_is_encrypted_as_there() {
        let public = decoded(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        );
        let auth = decoded("BTBZMqHH6r4Tts7J_aSIgg");
        let sender = decoded(
            "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8",
        );
        let salt = decoded("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let shared = decoded("kyrL1jIIOHEzg3sM2ZWRHDRB62YACZhhSlknJ672kSs");
        let subscriber = Subscriber {
            public: &public,
            auth: &auth,
        };
        let text = b"When I grow up, I want to be a watermelon";

        let input = input_key(subscriber, &sender, &shared).unwrap();
        let body = seal(text, subscriber, &sender, salt, &shared).unwrap();

        assert_eq!(
            URL_SAFE_NO_PAD.encode(input.as_slice()),
            "S4lYMb_L0FxCeq0WhDx813KgSYqU26kOyzWUdsXYyrg"
        );
        assert_eq!(
            URL_SAFE_NO_PAD.encode(&body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPT\
             pK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
        );
        assert_eq!(open(&body, subscriber, &shared).unwrap(), text);
    }

    #[test]
    fn a_browser_decrypts_what_was_encrypted_for_it() {
        for message in [&b""[..], b"x", &[0; 100], &[b'x'; MESSAGE_BYTES]] {
            let browser = Browser::new();
            let body = encrypt(message, browser.subscriber()).unwrap();

            assert_eq!(body.len(), message.len() + 103);
            assert!(body.len() <= 4_096);
            assert_eq!(browser.decrypt(&body).as_deref(), Some(message));
        }
    }

    #[test]
    fn nobody_else_decrypts_it() {
        let encrypted = |browser: &Browser| encrypt(b"DOWN", browser.subscriber()).unwrap();
        let (browser, other) = (Browser::new(), Browser::new());
        assert_eq!(other.decrypt(&encrypted(&browser)), None);
        // The right private key with another authentication secret.
        let mut browser = Browser::new();
        let body = encrypted(&browser);
        browser.auth[0] ^= 1;
        assert_eq!(browser.decrypt(&body), None);
        for place in [0, 30, 86, 100] {
            let browser = Browser::new();
            let mut body = encrypted(&browser);
            body[place] ^= 1;
            assert_eq!(browser.decrypt(&body), None, "{place}");
        }
        let browser = Browser::new();
        assert_ne!(
            encrypted(&browser),
            encrypted(&browser),
            "each message has a key and a salt of its own"
        );
    }

    #[test]
    fn only_points_on_the_curve_are_keys() {
        let good = Browser::new().public;
        let mut off = good.clone();
        off[64] ^= 1;
        let mut compressed = good[..33].to_vec();
        compressed[0] = 2;
        assert!(is_point(&good));
        for bad in [&off, &compressed, &vec![4; POINT], &vec![0; POINT], &Vec::new()] {
            assert!(!is_point(bad), "{bad:?}");
            let subscriber = Subscriber {
                public: bad,
                auth: &[0; AUTH],
            };
            assert!(encrypt(b"x", subscriber).is_err());
        }
    }
}
