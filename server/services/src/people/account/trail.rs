//! The trail of an account and the security log: what happens to an account, when, and from where (ADR 046).

use deadbeat_domain::ids::AccountId;
use deadbeat_domain::people::account::{AccountAct, EVENT_DAYS, EVENTS};
use deadbeat_store::Tx;
use deadbeat_store::people::account::event;

use super::Client;
use crate::people::security_log::{TARGET, shown};
use crate::{ServiceError, Services};

/// Notes an act in the transaction that does it.
pub(crate) async fn note(
    services: &Services,
    tx: &mut Tx,
    act: AccountAct,
    account: AccountId,
    client: &Client,
) -> Result<(), ServiceError> {
    let now = services.now();
    event::insert(
        tx,
        account,
        act,
        client.used_from(),
        now,
        now - EVENT_DAYS,
        EVENTS,
    )
    .await?;
    Ok(())
}

/// Writes an act into the security log, after its commit.
pub(crate) fn log(act: AccountAct, account: AccountId, client: &Client) {
    // The names of these acts are older than the trail.
    let action = match act {
        AccountAct::SignedIn => "sign_in",
        AccountAct::SignedOut => "sign_out",
        act => act.as_str(),
    };
    let words = act.words();
    if act == AccountAct::FactorFailed {
        tracing::warn!(target: TARGET, action, account.id = %account, address = shown(client.address()), "{words}");
    } else {
        tracing::info!(target: TARGET, action, account.id = %account, address = shown(client.address()), "{words}");
    }
}
