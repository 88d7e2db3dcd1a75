//! `deadbeat secrets …`

use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;
use deadbeat_domain::time::Clock;
use deadbeat_services::alert::sealing::keeper::{self, Keeper};
use deadbeat_services::alert::sealing::rotation::{self, Rotated};
use deadbeat_services::people::account::factor;
use deadbeat_services::secret::keyring::Keyring;
use deadbeat_store::Store;
use deadbeat_store::alert::sealed;

use crate::clock::SystemClock;
use crate::config::{DatabaseConfig, SecretConfig};
use crate::database::Database;

/// The subcommands of `deadbeat secrets`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encrypt the secrets of all channels anew with the first key, while servers run. Without DEADBEAT_SECRET_KEY, the command first puts a new
    /// key at the head of the data folder's secret.key. Run it again to continue an interrupted rotation.
    Rotate {
        /// Which database.
        #[command(flatten)]
        database: DatabaseConfig,
        /// Which keys.
        #[command(flatten)]
        secrets: SecretConfig,
        /// Continue although a key is lost for good: somebody must enter the secrets that it encrypts again.
        #[arg(long)]
        accept_loss: bool,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// The message is written for the person at the terminal.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Rotate {
        database: config,
        secrets,
        accept_loss,
    } = command;
    let keyring = secrets.keyring(&config)?;
    let database = Database::of_command(&config).await?;
    let store = database.store()?;
    let rotated = rotate(&store, &keyring, accept_loss).await;
    store.close().await;
    database.stop().await;
    let rotated = rotated?;
    println!(
        "{} channels were sealed anew; key {} seals from now on",
        rotated.sealed, rotated.key
    );
    if keyring.is_given() {
        println!("the other keys of DEADBEAT_SECRET_KEY still open backups that were made before");
    } else if let Some(file) = keyring.file() {
        println!("keep a copy of {} apart from the database", file.display());
    }
    if rotated.unopened.is_empty() {
        return Ok(());
    }
    let channels: i64 = rotated.unopened.iter().map(|(_, count)| count).sum();
    let keys: Vec<&str> = rotated.unopened.iter().map(|(key, _)| key.as_str()).collect();
    anyhow::bail!(
        "{channels} channels cannot be opened (sealed with key {}): enter their secrets again, or remove them",
        keys.join(", ")
    )
}

async fn rotate(store: &Store, keyring: &Keyring, accept_loss: bool) -> anyhow::Result<Rotated> {
    store.migrate().await.context("the database")?;
    let _lock = rotation::prepare(store, keyring, accept_loss).await?;
    let rotated = rotation::rotate(store, keyring, accept_loss, SystemClock.now(), |progress| {
        println!("{} of {} channels", progress.sealed, progress.total);
    })
    .await?;
    if let Some(key) = keyring.first() {
        let (sealed, unopened) = factor::reseal(store, keyring, &key)
            .await
            .context("the database")?;
        if sealed > 0 {
            println!("{sealed} second factors of accounts were sealed anew");
        }
        if unopened > 0 {
            println!(
                "{unopened} second factors of accounts cannot be opened: their owners need a recovery code, and must set up an authenticator again"
            );
        }
    }
    // Encrypts secrets that are still in clear, in case no server has done so yet.
    let passed = Keeper::new(store.clone(), Arc::new(SystemClock), keyring.clone())
        .pass_once()
        .await
        .context("the database")?;
    Ok(Rotated {
        sealed: rotated.sealed + i64::try_from(passed.sealed).unwrap_or_default(),
        ..rotated
    })
}

/// Describes how the secrets of channels are encrypted, for `deadbeat doctor`.
///
/// # Errors
/// If a key is missing or invalid, or the database cannot be reached.
pub(super) async fn state(
    secrets: &SecretConfig,
    config: &DatabaseConfig,
    database: &Database,
) -> anyhow::Result<String> {
    let keyring = secrets.keyring(config)?;
    let store = database.store()?;
    let examined = examine(&store, &keyring).await;
    store.close().await;
    examined
}

async fn examine(store: &Store, keyring: &Keyring) -> anyhow::Result<String> {
    let reader = store.reader();
    let missing = keeper::missing(store, keyring).await?;
    if !missing.is_empty() {
        let missing: Vec<String> = missing
            .iter()
            .map(|key| format!("key {} is missing ({} channels)", key.id, key.channels))
            .collect();
        anyhow::bail!(
            "{}; add it to DEADBEAT_SECRET_KEY or to the data folder's secret.key",
            missing.join(", ")
        );
    }
    let Some(first) = keyring.first() else {
        return Ok("no key yet: the first start of the server makes one in the data folder".to_owned());
    };
    let used = sealed::count_by_key(&reader).await?;
    let clear = sealed::count_clear(&reader).await?;
    let count = |id: &str| {
        used.iter()
            .find(|(key, _)| key == id)
            .map_or(0, |(_, count)| *count)
    };
    let older: i64 = used
        .iter()
        .filter(|(key, _)| key != first.id())
        .map(|(_, count)| count)
        .sum();
    let home = if keyring.is_given() {
        "DEADBEAT_SECRET_KEY".to_owned()
    } else {
        keyring
            .file()
            .map(|file| file.display().to_string())
            .unwrap_or_default()
    };
    let mut state = format!(
        "key {} of {home} seals {} channels",
        first.id(),
        count(first.id())
    );
    if older > 0 {
        state.push_str(&format!(
            "; older keys still seal {older} (deadbeat secrets rotate seals them anew)"
        ));
    }
    if clear > 0 {
        state.push_str(&format!(
            "; {clear} are in clear until a server has run for a minute"
        ));
    }
    Ok(state)
}
