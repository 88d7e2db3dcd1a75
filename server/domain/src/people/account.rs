//! Accounts: their mail addresses, links, codes, and the trail of what happens to them (ADR 046).

use chrono::TimeDelta;

use crate::alert::channel::is_mailable;
use crate::people::rate::Rate;

/// Sessions of one account. A further sign-in ends the session that was used longest ago.
pub const SESSIONS: i64 = 100;
/// Entries of one account's trail that the server keeps.
pub const EVENTS: i64 = 1_000;
/// How long an entry of an account's trail stays.
pub const EVENT_DAYS: TimeDelta = TimeDelta::days(365);
/// How long after a proof by password or code an account may do dangerous things without another proof.
pub const RECENT: TimeDelta = TimeDelta::minutes(15);
/// Mails about one account, or to one mailbox without an account, in a day.
pub const MAILS_A_DAY: u32 = 10;
/// Mails that one client may ask for.
pub const ASKED_BY_CLIENT: Rate = Rate {
    burst: 20.0,
    per_second: 1.0 / 60.0,
};
/// How long a browser may take for the next step of a sign-in.
pub const STEP: TimeDelta = TimeDelta::minutes(10);
/// Digits of a code that is mailed.
pub const CODE_DIGITS: usize = 8;
/// Wrong codes after which a step of a sign-in ends.
pub const CODE_TRIES: i16 = 5;
/// Recovery codes of one account.
pub const RECOVERY_CODES: usize = 10;

/// When sessions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnds {
    /// A session ends this long after its start.
    pub absolute: TimeDelta,
    /// A session ends when nobody has used it for this long.
    pub idle: TimeDelta,
}

impl Default for SessionEnds {
    fn default() -> Self {
        Self {
            absolute: TimeDelta::days(14),
            idle: TimeDelta::days(3),
        }
    }
}

/// Who may make an account without the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SignUp {
    /// Nobody.
    #[default]
    Closed,
    /// Whoever was invited to a project.
    Invite,
    /// Whoever has a mail address of these domains, in lower case. Never empty.
    Open(Vec<String>),
}

impl SignUp {
    /// True if the owner of this address may make an account without an invitation.
    #[must_use]
    pub fn admits(&self, email: &str) -> bool {
        match self {
            Self::Closed | Self::Invite => false,
            Self::Open(domains) => email
                .rsplit_once('@')
                .is_some_and(|(_, domain)| domains.iter().any(|one| one == domain)),
        }
    }
}

/// Returns the mail address of an account as it is stored, or None if no new account can have it.
///
/// Only ASCII is allowed: `раypal@example.org` with a Cyrillic `а` looks like another address, and the Kelvin sign becomes a `k` in lower
/// case. International domains have an ASCII form (`xn--…`).
#[must_use]
pub fn address(text: &str) -> Option<String> {
    let text = text.trim();
    if !text.is_ascii() || text.contains(['\'', '`', '\\', '(', ')', '[', ']', ':', '%', '!', '|', '&']) {
        return None;
    }
    let email = text.to_ascii_lowercase();
    let is_fit = is_mailable(&email) && email.rsplit_once('@').is_some_and(|(local, _)| local.len() <= 64);
    is_fit.then_some(email)
}

macro_rules! words {
    ($(#[$head:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$head])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$doc])* $name,)*
        }

        impl $type {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The value as stored.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

words! {
    /// What a link in a mail does.
    LinkKind {
        /// Makes an account.
        SignUp = "sign_up",
        /// Sets a new password.
        Reset = "reset",
        /// Gives the account the address to which the link was sent.
        NewMail = "new_mail",
        /// Gives the account its former address again, to which the link was sent.
        UndoMail = "undo_mail",
    }
}

impl LinkKind {
    /// How long the link works.
    #[must_use]
    pub fn lasts(self) -> TimeDelta {
        match self {
            Self::SignUp => TimeDelta::days(1),
            Self::Reset | Self::NewMail => TimeDelta::hours(1),
            // Somebody who is on holiday must still be able to take an account back.
            Self::UndoMail => TimeDelta::days(30),
        }
    }
}

words! {
    /// What happened to an account.
    AccountAct {
        /// The account was created.
        Created = "account.created",
        /// Somebody signed in.
        SignedIn = "session.began",
        /// Somebody signed out.
        SignedOut = "session.ended",
        /// Somebody ended another session.
        SessionRevoked = "session.revoked",
        /// Somebody ended all other sessions.
        OthersRevoked = "sessions.revoked",
        /// The owner proved again to be the owner.
        Proved = "session.proved",
        /// Somebody changed the password, knowing the old one.
        PasswordChanged = "password.changed",
        /// Somebody asked for a link that sets a new password.
        ResetAsked = "password.reset_requested",
        /// Somebody set a new password by a link.
        PasswordReset = "password.reset",
        /// Somebody asked for another mail address.
        MailAsked = "email.change_requested",
        /// The account got another mail address.
        MailChanged = "email.changed",
        /// The account got its former mail address again.
        MailUndone = "email.change_undone",
        /// Somebody asked for a code by mail.
        CodeAsked = "code.requested",
        /// The second factor was switched on.
        FactorOn = "second_factor.enabled",
        /// The second factor was switched off.
        FactorOff = "second_factor.disabled",
        /// A wrong code of the second factor.
        FactorFailed = "second_factor.failed",
        /// A recovery code was used up.
        RecoveryUsed = "recovery_code.used",
        /// New recovery codes replaced the old ones.
        RecoveryRenewed = "recovery_codes.renewed",
        /// The owner exported what is stored about the account.
        Exported = "account.exported",
        /// The account was deleted. Only the security log has this.
        Deleted = "account.deleted",
    }
}

impl AccountAct {
    /// Returns a sentence for the account's page.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Created => "The account was created",
            Self::SignedIn => "Somebody signed in",
            Self::SignedOut => "Somebody signed out",
            Self::SessionRevoked => "A session was ended",
            Self::OthersRevoked => "All other sessions were ended",
            Self::Proved => "The password was given again",
            Self::PasswordChanged => "The password was changed",
            Self::ResetAsked => "A link to set a new password was requested",
            Self::PasswordReset => "A new password was set by a link",
            Self::MailAsked => "A change of the mail address was requested",
            Self::MailChanged => "The mail address was changed",
            Self::MailUndone => "A change of the mail address was undone",
            Self::CodeAsked => "A code to sign in was requested by mail",
            Self::FactorOn => "The second factor was switched on",
            Self::FactorOff => "The second factor was switched off",
            Self::FactorFailed => "A wrong code of the second factor was given",
            Self::RecoveryUsed => "A recovery code was used",
            Self::RecoveryRenewed => "New recovery codes were made",
            Self::Exported => "The account's data were exported",
            Self::Deleted => "The account was deleted",
        }
    }

    /// Returns the sentence of a stored act, or the act itself if this version does not know it.
    #[must_use]
    pub fn words_of(stored: &str) -> String {
        Self::ALL
            .iter()
            .find(|act| act.as_str() == stored)
            .map_or_else(|| stored.to_owned(), |act| act.words().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_become_accounts() {
        for (text, stored) in [
            ("ada@example.org", Some("ada@example.org")),
            (" Ada@Example.ORG ", Some("ada@example.org")),
            (
                "ada+test@xn--bcher-kva.example",
                Some("ada+test@xn--bcher-kva.example"),
            ),
            ("admin@localhost", Some("admin@localhost")),
            // A Cyrillic letter, a Kelvin sign, a dotless i, a full-width at sign, an invisible space.
            ("\u{430}da@example.org", None),
            ("bac\u{212a}@example.org", None),
            ("adm\u{131}n@example.org", None),
            ("ada\u{ff20}example.org", None),
            ("ada\u{200b}@example.org", None),
            ("ada@b\u{fc}cher.example", None),
            ("ada@example.org\r\nBcc: all@example.org", None),
            ("ada@example.org,eve@example.org", None),
            ("ada@example.org eve@example.org", None),
            ("ada@[127.0.0.1]", None),
            ("-oProxy@example.org", None),
            ("ada%eve@example.org", None),
            ("a:b@example.org", None),
            ("ada@", None),
            ("", None),
        ] {
            assert_eq!(address(text).as_deref(), stored, "{text:?}");
        }
        assert!(address(&format!("{}@example.org", "a".repeat(65))).is_none());
    }

    #[test]
    fn open_sign_up_admits_its_domains_only() {
        let open = SignUp::Open(vec!["example.org".to_owned()]);
        assert!(open.admits("ada@example.org"));
        for other in [
            "ada@sub.example.org",
            "ada@example.org.evil.test",
            "ada@evilexample.org",
            "example.org",
            "@",
        ] {
            assert!(!open.admits(other), "{other}");
        }
        assert!(!SignUp::Closed.admits("ada@example.org"));
        assert!(!SignUp::Invite.admits("ada@example.org"));
    }

    #[test]
    fn acts_are_distinct_and_have_words() {
        let texts: std::collections::HashSet<&str> = AccountAct::ALL.iter().map(|act| act.as_str()).collect();
        assert_eq!(texts.len(), AccountAct::ALL.len());
        assert_eq!(
            AccountAct::words_of("password.reset"),
            AccountAct::PasswordReset.words()
        );
        assert_eq!(AccountAct::words_of("later.act"), "later.act");
    }
}
