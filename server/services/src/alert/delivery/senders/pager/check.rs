//! Checks of settings that several pagers share.

use deadbeat_domain::monitor::FieldError;
use url::Url;

/// A check of an address: the one for stored rows, or the one for new settings.
pub(super) type Address = fn(&str, &str) -> Result<(), FieldError>;

/// Checks the address of a team's own server. Paths are added to it, and answers show it, so it holds no credentials.
///
/// # Errors
/// If it is no address, or has a user name, a password, a query or a fragment.
pub(super) fn server(field: &str, url: &str, address: Address) -> Result<(), FieldError> {
    address(field, url)?;
    let is_base = Url::parse(url).is_ok_and(|url| {
        url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    if is_base {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        "is not the address of a server alone: it may have a path, and neither a user name, a password, a query nor a fragment",
    ))
}

/// Checks a setting that becomes one part of a path. It may be a secret, so the fault does not repeat it.
///
/// # Errors
/// If it is empty, longer than `most` characters, or holds other characters than letters, digits, `_` and `-`.
pub(super) fn path_part(field: &str, text: &str, most: usize) -> Result<(), FieldError> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=most).contains(&text.len()) && text.bytes().all(is_plain) {
        return Ok(());
    }
    Err(FieldError::new(
        format!("/settings/{field}"),
        format!("is not 1 to {most} letters, digits, _ and -"),
    ))
}

/// Returns all faults of several checks.
///
/// # Errors
/// If at least one check found a fault.
pub(super) fn all(checks: impl IntoIterator<Item = Result<(), FieldError>>) -> Result<(), Vec<FieldError>> {
    let faults: Vec<FieldError> = checks.into_iter().filter_map(Result::err).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// Returns the address of a path on a server.
pub(super) fn below(server: &str, path: &str) -> String {
    format!("{}{path}", server.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::super::super::http::check_new_url;
    use super::*;

    #[test]
    fn a_server_has_no_credentials_query_or_fragment() {
        for (url, is_good) in [
            ("https://alerts.example.org", true),
            ("http://alerts.example.org:9093/prefix/", true),
            ("https://user@alerts.example.org", false),
            ("https://user:password@alerts.example.org", false),
            ("https://alerts.example.org/?token=0123", false),
            ("https://alerts.example.org/#x", false),
            ("ftp://alerts.example.org", false),
            ("https://", false),
        ] {
            assert_eq!(server("url", url, check_new_url).is_ok(), is_good, "{url}");
        }
        assert_eq!(
            below("https://a.example/prefix/", "/api"),
            "https://a.example/prefix/api"
        );
    }

    #[test]
    fn a_part_of_a_path_leads_nowhere_else() {
        for (text, is_good) in [
            ("01GW2G3V0S59R238FAHPDS1R66", true),
            ("558e7ebc-XXXX_1", true),
            ("", false),
            ("..", false),
            ("a/b", false),
            ("a?b", false),
            ("a%2fb", false),
            ("a\n", false),
            ("ä", false),
        ] {
            assert_eq!(path_part("key", text, 64).is_ok(), is_good, "{text}");
        }
        assert!(path_part("key", &"x".repeat(65), 64).is_err());
    }
}
