//! Mails to people about their accounts, and the desk that writes and sends them.
//!
//! The desk works after the answer. So a form answers at once, and equally fast whether the address has an account. A mail exists in this
//! process's memory only: the database has digests of links alone. When a process ends, its mails are lost, and people ask again (ADR 046).

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadbeat_domain::alert::channel::mailbox;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::people::account::{ASKED_BY_CLIENT, MAILS_A_DAY, RECENT, STEP};
use deadbeat_domain::people::guessing;
use deadbeat_domain::people::rate::Bucket;
use deadbeat_store::Tx;
use deadbeat_store::people::account::Account;
use deadbeat_store::people::quota::Counted;
use tokio::sync::Semaphore;

use super::Client;
use crate::alert::delivery::story::Story;
use crate::people::quota::spend;
use crate::{ServiceError, Services};

/// The most pieces of work that the desk has at once, mails on their way included.
const SLOTS: usize = 200;
/// The most pieces that use the database at once.
const TURNS: usize = 2;
/// The most clients that are counted at once.
const CLIENTS: usize = 30_000;
/// The pauses before the second and the third attempt to send a mail.
const PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(20)];

/// What a mail to a mailbox counts against.
///
/// Requests from an address at which the account is known count apart, so that strangers cannot use up what the owner needs.
pub(crate) struct Mailing(Counted);

impl Mailing {
    /// Finds out what a mail to this address counts against. Call it before a transaction begins: it uses a connection of its own.
    pub(crate) async fn to(services: &Services, email: &str, client: &Client) -> Result<Self, ServiceError> {
        let is_known = match client.used_from().address {
            Some(address) => {
                let since = services.now() - guessing::KNOWN_FOR;
                deadbeat_store::people::account::is_known_at(&services.reader(), email, address, since)
                    .await?
            }
            None => false,
        };
        let whose = if is_known { " of its owner" } else { "" };
        Ok(Self(Counted::AccountMailsTo(format!(
            "{}{whose}",
            mailbox(email)
        ))))
    }

    /// Counts a mail. False: the mailbox got enough today. The caller then sends nothing and answers as usual, because the answer must not
    /// depend on what others asked for.
    pub(crate) async fn allows(&self, tx: &mut Tx, now: DateTime<Utc>) -> Result<bool, ServiceError> {
        match spend(tx, &self.0, MAILS_A_DAY, now).await {
            Ok(()) => Ok(true),
            Err(ServiceError::TooMany { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Writes and sends mails after the answer to a request. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Desk {
    slots: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    clients: Arc<Mutex<HashMap<Option<IpAddr>, Bucket>>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(SLOTS)),
            turns: Arc::new(Semaphore::new(TURNS)),
            clients: Arc::default(),
        }
    }
}

impl Desk {
    /// Counts a request for a mail by its client.
    ///
    /// # Errors
    /// If this client asks too often.
    pub(crate) fn count(&self, client: &Client, now: DateTime<Utc>) -> Result<(), ServiceError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS && !clients.contains_key(&client.address()) {
            clients.retain(|_, bucket| !bucket.is_full(&ASKED_BY_CLIENT, now));
            if clients.len() >= CLIENTS {
                // The limit of each mailbox still holds.
                clients.clear();
            }
        }
        clients
            .entry(client.address())
            .or_insert_with(|| Bucket::full(&ASKED_BY_CLIENT, now))
            .take(&ASKED_BY_CLIENT, 1.0, now)
            .map_err(|retry_after| ServiceError::TooMany {
                what: "too many mails were requested in a short time".to_owned(),
                retry_after,
            })
    }

    /// Does a piece of work after the answer, and sends the mails that it writes.
    ///
    /// # Errors
    /// If too many pieces wait.
    pub(crate) fn accept(
        &self,
        services: &Services,
        work: impl Future<Output = Result<Vec<Letter>, ServiceError>> + Send + 'static,
    ) -> Result<(), ServiceError> {
        let slot = Arc::clone(&self.slots)
            .try_acquire_owned()
            .map_err(|_| ServiceError::Busy)?;
        let (turns, services) = (Arc::clone(&self.turns), services.clone());
        tokio::spawn(async move {
            let letters = {
                let _turn = turns.acquire_owned().await;
                work.await
            };
            match letters {
                Ok(letters) => {
                    for letter in letters {
                        letter.send(&services).await;
                    }
                }
                Err(error) => tracing::error!(%error, "a mail to an account could not be written"),
            }
            drop(slot);
        });
        Ok(())
    }

    /// Sends a mail that somebody must get after a change. If too many wait, the log says that it was not sent.
    pub(crate) fn inform(&self, services: &Services, letter: Letter) {
        if self.accept(services, async move { Ok(vec![letter]) }).is_err() {
            tracing::error!("a mail about a changed account was not sent: too many mails wait");
        }
    }
}

/// A mail to a person. It holds no text that a stranger chose.
pub(crate) struct Letter {
    to: String,
    story: Story,
}

impl Letter {
    fn new(to: &str, headline: &str, summary: String, link: Option<String>) -> Self {
        let mut story = Story::plain(headline.to_owned(), summary);
        story.link = link;
        Self {
            to: to.to_owned(),
            story,
        }
    }

    async fn send(&self, services: &Services) {
        let Some(senders) = &services.channel_rules.senders else {
            tracing::warn!("a mail to an account was not sent: this process sends no mail");
            return;
        };
        let mut pauses = PAUSES.iter();
        loop {
            let detail = match senders.post(&self.to, &self.story, services.now()).await {
                Outcome::Sent { .. } => return,
                // A refused mailbox stays refused.
                Outcome::Failed { detail, .. } => Err(detail),
                Outcome::Retry { detail, .. } => Ok(detail),
            };
            let pause = pauses.next().filter(|_| detail.is_ok());
            let (Ok(detail) | Err(detail)) = detail;
            let Some(pause) = pause else {
                tracing::error!(detail, "a mail to an account could not be sent");
                return;
            };
            tokio::time::sleep(*pause).await;
        }
    }

    pub(crate) fn reset(services: &Services, account: &Account, token: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            &account.email,
            "Set a new password",
            format!(
                "Somebody asked for a new password of your account on {site}. The link below works once, for an hour. If it was not you, \
                 ignore this mail: nothing changes."
            ),
            Some(format!("{site}/reset/{token}")),
        )
    }

    pub(crate) fn password_changed(services: &Services, account: &Account) -> Self {
        let site = &services.site.url;
        Self::new(
            &account.email,
            "Your password was changed",
            format!(
                "The password of your account on {site} was changed, and all other sessions were ended. If it was not you, set a new password now: \
                 follow the link below."
            ),
            Some(format!("{site}/reset")),
        )
    }

    pub(crate) fn new_address(services: &Services, email: &str, token: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            email,
            "Use this mail address for your account?",
            format!(
                "Somebody wants to use this address for an account on {site}. If it was you, open the link below within an hour and press the \
                 button there. If not, ignore this mail."
            ),
            Some(format!("{site}/account/email/confirm/{token}")),
        )
    }

    pub(crate) fn address_changed(services: &Services, old: &str, token: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            old,
            "Your account has another mail address now",
            format!(
                "Your account on {site} no longer uses this address. If it was not you, open the link below within 30 days: the account gets this \
                 address again, and all sessions end."
            ),
            Some(format!("{site}/account/email/undo/{token}")),
        )
    }

    pub(crate) fn address_taken(services: &Services, email: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            email,
            "You have an account already",
            format!(
                "Somebody gave this address on {site} for an account, and there is one already. Nothing changes. If you forgot its password, \
                 follow the link below."
            ),
            Some(format!("{site}/reset")),
        )
    }

    pub(crate) fn sign_up(services: &Services, email: &str, token: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            email,
            "Finish your account",
            format!(
                "Somebody wants to make an account with this address on {site}. If it was you, open the link below within a day and choose a \
                 password. If not, ignore this mail."
            ),
            Some(format!("{site}/sign-up/{token}")),
        )
    }

    pub(crate) fn code(services: &Services, account: &Account, code: &str) -> Self {
        let site = &services.site.url;
        let mut letter = Self::new(
            &account.email,
            "Your code to sign in",
            format!(
                "Enter this code in the browser that asked for it on {site}. It works once, for {} minutes. Give it to nobody. If you did not \
                 ask for it, ignore this mail.",
                STEP.num_minutes()
            ),
            None,
        );
        letter.story.facts.push(("Code", code.to_owned()));
        letter
    }

    pub(crate) fn factor(services: &Services, account: &Account, headline: &str) -> Self {
        let site = &services.site.url;
        Self::new(
            &account.email,
            headline,
            format!(
                "This was done in your account on {site} by somebody who gave the password within {} minutes. If it was not you, set a new password \
                 now, and ask the operator of the server for help.",
                RECENT.num_minutes()
            ),
            Some(format!("{site}/reset")),
        )
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_client_that_asks_too_often_is_refused_and_no_other_is() {
        let (desk, now) = (Desk::default(), "2026-07-01T02:00:00Z".parse().unwrap());
        let client = |n: u8| Client::new(Some(IpAddr::from([192, 0, 2, n])), "");
        for _ in 0..20 {
            desk.count(&client(1), now).unwrap();
        }

        let ServiceError::TooMany { retry_after, .. } = desk.count(&client(1), now).unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(retry_after, TimeDelta::minutes(1));
        desk.count(&client(2), now).unwrap();
        desk.count(&client(1), now + retry_after).unwrap();
    }
}
