//! Translates the TLS library's refusal of a database's certificate into an error that says what to do.

use std::error::Error;

use thiserror::Error;

use crate::with_sources;

/// The TLS library's name for a certificate of X.509 version 1.
const VERSION_IS_OLD: &str = "UnsupportedCertVersion";

/// PostgreSQL's manual recommended commands that make such a certificate for years.
#[derive(Debug, Error)]
#[error(
    "the server's certificate is of X.509 version 1; make a v3 one: openssl req -new -x509 -days 365 -nodes -subj /CN=HOST -addext subjectAltName=DNS:HOST -out server.crt -keyout server.key"
)]
struct OldVersion;

/// Returns the same error, or one that names the fault of the certificate.
pub(crate) fn named(error: sqlx::Error) -> sqlx::Error {
    let is_tls = matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_));
    let cause: &(dyn Error + 'static) = &error;
    if is_tls && with_sources(cause).to_string().contains(VERSION_IS_OLD) {
        return sqlx::Error::Tls(Box::new(OldVersion));
    }
    error
}
