//! The key of a request. Clients of Sentry send it in one of six places.

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::compat::door::parameter;

/// The key of a request, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presented {
    /// The key.
    Key(String),
    /// The request has a header for the key that cannot be read.
    Unreadable,
    /// The request has no key.
    Missing,
}

/// Returns the key of a request: from its headers, else its query. `last` is where else this route looks.
pub(super) fn presented(request: &HttpRequest, last: Option<&str>) -> Presented {
    for name in ["x-sentry-auth", header::AUTHORIZATION.as_str()] {
        let Some(value) = request.headers().get(name) else {
            continue;
        };
        return match value.to_str().ok().and_then(from_header) {
            Some(key) => Presented::Key(key),
            None => Presented::Unreadable,
        };
    }
    match parameter(request, "sentry_key").or_else(|| last.map(str::to_owned)) {
        Some(key) if !key.is_empty() => Presented::Key(key),
        _ => Presented::Missing,
    }
}

/// Reads `Sentry sentry_key=…, sentry_version=7, …`, or HTTP Basic with the key as the user.
fn from_header(value: &str) -> Option<String> {
    let (scheme, rest) = value.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest.trim()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        return Some(decoded.split(':').next().unwrap_or_default().to_owned()).filter(|key| !key.is_empty());
    }
    if !scheme.eq_ignore_ascii_case("sentry") {
        return None;
    }
    rest.split(',')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("sentry_key"))
        .map(|(_, key)| key.trim().to_owned())
        .filter(|key| !key.is_empty())
}

/// Returns the key of a DSN: `https://<key>[:<secret>]@host/<number>`.
pub(super) fn of_dsn(dsn: &str) -> Option<String> {
    let dsn = url::Url::parse(dsn).ok()?;
    Some(dsn.username().to_owned()).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn each_place_of_a_key_is_read() {
        let basic = format!("Basic {}", STANDARD.encode("k1:secret"));
        for (name, value) in [
            (
                "X-Sentry-Auth",
                "Sentry sentry_key=k1, sentry_version=7, sentry_client=sentry.python/2.75.0",
            ),
            ("X-Sentry-Auth", "sentry sentry_version=7,SENTRY_KEY = k1,unknown"),
            ("Authorization", "Sentry sentry_key=k1"),
            ("Authorization", basic.as_str()),
        ] {
            let request = TestRequest::default()
                .insert_header((name, value))
                .to_http_request();
            assert_eq!(
                presented(&request, None),
                Presented::Key("k1".to_owned()),
                "{value}"
            );
        }
        let request = TestRequest::with_uri("/?sentry_version=7&sentry_key=k1").to_http_request();
        assert_eq!(presented(&request, Some("k2")), Presented::Key("k1".to_owned()));
        let request = TestRequest::default().to_http_request();
        assert_eq!(presented(&request, Some("k2")), Presented::Key("k2".to_owned()));
        assert_eq!(presented(&request, None), Presented::Missing);
        assert_eq!(of_dsn("https://k1:s@h.test/p/7").as_deref(), Some("k1"));
        assert_eq!(of_dsn("https://h.test/7"), None);
        assert_eq!(of_dsn("nonsense"), None);
    }

    #[test]
    fn a_header_without_a_key_is_unreadable() {
        for (name, value) in [
            ("X-Sentry-Auth", "Sentry"),
            ("X-Sentry-Auth", "Sentry sentry_version=7"),
            ("X-Sentry-Auth", "Sentry sentry_key="),
            ("X-Sentry-Auth", "Bearer k1"),
            ("Authorization", "Basic ***"),
            ("Authorization", "Basic Og=="),
        ] {
            let request = TestRequest::default()
                .insert_header((name, value))
                .to_http_request();
            assert_eq!(presented(&request, Some("k2")), Presented::Unreadable, "{value}");
        }
    }
}
