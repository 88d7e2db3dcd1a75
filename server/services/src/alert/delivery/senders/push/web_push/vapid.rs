//! Voluntary Application Server Identification (RFC 8292): a signed token tells a push service which server sends.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::json;
use url::Url;
use zeroize::Zeroizing;

/// How long a token holds. RFC 8292, 2 allows a day; a token that leaks should not hold so long, and clocks may differ by some minutes.
const TOKEN_HOURS: i64 = 2;

/// The key pair of this deployment, on P-256.
pub(crate) struct VapidKey {
    pair: EcdsaKeyPair,
}

/// Shows the public key only, so that the private key stays out of logs.
impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VapidKey").field(&self.public()).finish()
    }
}

impl VapidKey {
    /// Makes a key. Returns its text, which [`VapidKey::parse`] reads: the document of PKCS #8 in base64url.
    ///
    /// # Panics
    /// If the operating system has no randomness: nothing safe can be done then.
    pub(crate) fn generate() -> Zeroizing<String> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .expect("the operating system gives randomness");
        Zeroizing::new(URL_SAFE_NO_PAD.encode(document.as_ref()))
    }

    /// Reads the text of [`VapidKey::generate`]. None: it is no such text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let document = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
        let random = SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &random)
            .ok()
            .map(|pair| Self { pair })
    }

    /// Returns the public key as browsers take it: the uncompressed point in base64url.
    pub(crate) fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref())
    }

    /// Returns the header `Authorization` for a request to this endpoint (RFC 8292, 3). `contact` is an address of
    /// the operator, which the push service may use when this server misbehaves. None: the signature failed.
    pub(super) fn authorization(
        &self,
        endpoint: &Url,
        contact: Option<&str>,
        now: DateTime<Utc>,
    ) -> Option<Zeroizing<String>> {
        let mut claims = json!({
            "aud": endpoint.origin().ascii_serialization(),
            "exp": (now + TimeDelta::hours(TOKEN_HOURS)).timestamp(),
        });
        if let Some(contact) = contact {
            claims["sub"] = json!(contact);
        }
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let head = part(json!({"typ": "JWT", "alg": "ES256"}).to_string());
        let signed = format!("{head}.{}", part(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature.as_ref());
        Some(Zeroizing::new(format!(
            "vapid t={signed}.{signature}, k={}",
            self.public()
        )))
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// Reads a header as a push service does (RFC 8292, 3 and 4.2). Returns the claims.
    fn verified(header: &str) -> Value {
        let (token, public) = header
            .strip_prefix("vapid t=")
            .and_then(|rest| rest.split_once(", k="))
            .unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, decoded(public))
            .verify(signed.as_bytes(), &decoded(signature))
            .unwrap();
        let head: Value = serde_json::from_slice(&decoded(head)).unwrap();
        assert_eq!(head, json!({"typ": "JWT", "alg": "ES256"}));
        serde_json::from_slice(&decoded(claims)).unwrap()
    }

    #[test]
    fn a_push_service_can_verify_the_token() {
        let key = VapidKey::parse(&VapidKey::generate()).unwrap();
        let now: DateTime<Utc> = "2026-01-02T03:04:05Z".parse().unwrap();
        for (endpoint, origin) in [
            (
                "https://push.example.net/wpush/v2/x?y",
                "https://push.example.net",
            ),
            ("http://127.0.0.1:8080/up", "http://127.0.0.1:8080"),
            ("https://push.example.net:443/x", "https://push.example.net"),
        ] {
            let header = key
                .authorization(
                    &endpoint.parse().unwrap(),
                    Some("https://deadbeat.example.org"),
                    now,
                )
                .unwrap();

            assert_eq!(
                verified(&header),
                json!({"aud": origin, "exp": now.timestamp() + 7_200, "sub": "https://deadbeat.example.org"})
            );
        }
        let header = key
            .authorization(&"https://push.example.net".parse().unwrap(), None, now)
            .unwrap();
        assert!(verified(&header).get("sub").is_none());
    }

    #[test]
    fn a_key_is_its_text_and_stays_out_of_logs() {
        let text = VapidKey::generate();
        let (key, same) = (VapidKey::parse(&text).unwrap(), VapidKey::parse(&text).unwrap());
        assert_eq!(key.public(), same.public());
        assert_eq!((key.public().len(), decoded(&key.public())[0]), (87, 4));
        assert_ne!(
            key.public(),
            VapidKey::parse(&VapidKey::generate()).unwrap().public()
        );
        assert!(!format!("{key:?}").contains(&text[..20]));
        for text in ["", "AAAA", "no base64!", &text[..text.len() - 4]] {
            assert!(VapidKey::parse(text).is_none(), "{text}");
        }
    }
}
