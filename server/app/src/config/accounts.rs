//! The settings of accounts and sessions.

use chrono::TimeDelta;
use clap::{Args, ValueEnum};
use deadbeat_domain::people::account::{SessionEnds, SignUp, address};
use deadbeat_services::people::account::AccountSettings;

/// Settings of accounts and sessions.
#[derive(Debug, Clone, Args)]
pub struct AccountConfig {
    /// Who may make an account without the operator: closed (nobody), invite (whoever was invited to a project), open (whoever has a mail
    /// address of DEADBEAT_SIGN_UP_DOMAINS). The server must be able to send mail.
    #[arg(
        long,
        env = "DEADBEAT_SIGN_UP",
        value_enum,
        default_value = "closed",
        value_name = "MODE"
    )]
    pub sign_up: Mode,

    /// Domains of the mail addresses that may sign up, separated by commas. Needed by the mode open.
    #[arg(long, env = "DEADBEAT_SIGN_UP_DOMAINS", default_value = "", value_name = "DOMAIN,…", value_parser = domains)]
    pub sign_up_domains: Domains,

    /// Whole days after which a session ends, however it is used, 1 to 365.
    #[arg(long, env = "DEADBEAT_SESSION_DAYS", default_value_t = 14, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=365))]
    pub session_days: u16,

    /// Hours after which a session ends that nobody uses, 1 to 8760.
    #[arg(long, env = "DEADBEAT_SESSION_IDLE_HOURS", default_value_t = 72, value_name = "HOURS", value_parser = clap::value_parser!(u16).range(1..=8760))]
    pub session_idle_hours: u16,
}

/// Who may make an account without the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nobody.
    Closed,
    /// Whoever was invited to a project.
    Invite,
    /// Whoever has a mail address of the allowed domains.
    Open,
}

/// Domains of mail addresses, in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains(pub Vec<String>);

impl AccountConfig {
    /// Converts the settings.
    ///
    /// # Errors
    /// The mode `open` without domains.
    pub fn settings(&self) -> anyhow::Result<AccountSettings> {
        let sign_up = match self.sign_up {
            Mode::Closed => SignUp::Closed,
            Mode::Invite => SignUp::Invite,
            Mode::Open if self.sign_up_domains.0.is_empty() => {
                anyhow::bail!("DEADBEAT_SIGN_UP=open needs DEADBEAT_SIGN_UP_DOMAINS, such as example.org")
            }
            Mode::Open => SignUp::Open(self.sign_up_domains.0.clone()),
        };
        Ok(AccountSettings {
            sign_up,
            sessions: SessionEnds {
                absolute: TimeDelta::days(self.session_days.into()),
                idle: TimeDelta::hours(self.session_idle_hours.into()),
            },
        })
    }
}

fn domains(text: &str) -> Result<Domains, String> {
    text.split(',')
        .map(str::trim)
        .filter(|domain| !domain.is_empty())
        .map(|domain| {
            // A domain is right if an address of it is.
            let of_domain = address(&format!("a@{domain}"));
            let domain = of_domain.as_deref().and_then(|one| one.strip_prefix("a@"));
            domain.map(str::to_owned)
        })
        .collect::<Option<Vec<_>>>()
        .map(Domains)
        .ok_or_else(|| "domains with commas between are allowed, such as example.org,example.com".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: Mode, given: &str) -> AccountConfig {
        AccountConfig {
            sign_up: mode,
            sign_up_domains: domains(given).unwrap(),
            session_days: 14,
            session_idle_hours: 72,
        }
    }

    #[test]
    fn open_needs_domains() {
        assert!(config(Mode::Open, "").settings().is_err());
        let open = config(Mode::Open, " Example.ORG , example.com")
            .settings()
            .unwrap();
        let wanted = ["example.org", "example.com"].map(str::to_owned).to_vec();
        assert_eq!(open.sign_up, SignUp::Open(wanted));
        let closed = config(Mode::Closed, "").settings().unwrap();
        assert_eq!(closed, AccountSettings::default());
        for wrong in [
            "*",
            "a b",
            "@example.org",
            "ex\u{e4}mple.org",
            "example.org;example.com",
            "-x.org",
        ] {
            assert!(domains(wrong).is_err(), "{wrong}");
        }
    }
}
