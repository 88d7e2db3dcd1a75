//! Which passwords an account may have.
//!
//! The rules are those of OWASP ASVS 5 (6.2): a least length, no rules about kinds of characters, and none of the commonest passwords. The
//! list is the first 10,000 of the frequency list of zxcvbn (4.5.0 of the Python package, MIT: `password/common.LICENSE.txt`), most common
//! first.

use std::collections::HashSet;
use std::sync::LazyLock;

use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

/// The fewest characters of a password.
pub const LEAST_CHARS: usize = 10;
/// The most characters of a password.
pub const MOST_CHARS: usize = 200;
/// The most bytes of a password. No account has a longer one, so a longer one is never hashed.
pub const MOST_BYTES: usize = 1_000;
/// The fewest different characters of a password.
const LEAST_DIFFERENT: usize = 4;

static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("password/common.txt").lines().collect());

/// Why a password is refused. The text continues "the password …" and never repeats the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It is too short or too long.
    #[error("has {0} characters; {LEAST_CHARS} to {MOST_CHARS} are allowed")]
    Length(usize),
    /// It is one of the commonest.
    #[error("is one of the 10,000 commonest passwords; choose another one")]
    Common,
    /// It repeats a few characters.
    #[error("repeats the same few characters; choose another one")]
    Repetitive,
    /// It is the mail address or a part of it.
    #[error("is part of the mail address; choose another one")]
    Mail,
}

/// Checks a new password of the account with this mail address.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(password: &str, email: &str) -> Result<(), Unfit> {
    let length = password.chars().count();
    if !(LEAST_CHARS..=MOST_CHARS).contains(&length) {
        return Err(Unfit::Length(length));
    }
    let plain: String = password.nfkc().collect::<String>().to_lowercase();
    let plain = plain.trim();
    if COMMON.contains(plain) {
        return Err(Unfit::Common);
    }
    if plain.chars().collect::<HashSet<_>>().len() < LEAST_DIFFERENT {
        return Err(Unfit::Repetitive);
    }
    if email.to_lowercase().contains(plain) {
        return Err(Unfit::Mail);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &str = "ada.lovelace@example.org";

    #[test]
    fn the_list_has_ten_thousand_passwords_in_lower_case() {
        assert_eq!(COMMON.len(), 10_000);
        assert!(COMMON.iter().all(|one| one.to_lowercase() == **one));
    }

    #[test]
    fn common_short_repeated_and_personal_passwords_are_refused() {
        for (password, fault) in [
            ("short", Unfit::Length(5)),
            (&"é".repeat(201), Unfit::Length(201)),
            ("password123", Unfit::Common),
            ("PassWord123", Unfit::Common),
            // Full-width letters are the same password to a person who types it.
            ("ｐassword123", Unfit::Common),
            (" password123 ", Unfit::Common),
            ("aaaaaaaaaa", Unfit::Repetitive),
            ("abababababab", Unfit::Repetitive),
            ("Ada.Lovelace", Unfit::Mail),
            (MAIL, Unfit::Mail),
        ] {
            assert_eq!(check(password, MAIL), Err(fault), "{password}");
        }
        for password in [
            "a long password",
            "0123456789x",
            "correct horse battery staple",
            "пароль пароль",
        ] {
            assert_eq!(check(password, MAIL), Ok(()), "{password}");
        }
        assert_eq!(check(&"abcde".repeat(40), MAIL), Ok(()));
    }

    #[test]
    fn no_refusal_repeats_the_password() {
        for password in ["password123", "aaaaaaaaaa", "hunter2", MAIL] {
            let words = check(password, MAIL).unwrap_err().to_string();
            assert!(!words.contains(password), "{words}");
        }
    }
}
