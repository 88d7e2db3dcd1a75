//! Notifications between processes (LISTEN). A notification is only a hint: the receiver reads the database, and polls
//! as well.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::connection::line::no_answer;
use crate::{Store, StoreResult};

/// Check the connection if no notification came for this long, because a hung connection is silent, too.
const QUIET_IS_SUSPECT: Duration = Duration::from_secs(5);
/// How long connecting, or the answer to that check, may take.
const LIVES: Duration = Duration::from_secs(3);

/// A subscription to one channel, with a connection of its own.
#[derive(Debug)]
pub struct Wakeups {
    listener: PgListener,
}

impl Store {
    /// Listens on a channel.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn listen(&self, channel: &str) -> StoreResult<Wakeups> {
        self.lines.gate.pass()?;
        // Use a separate pool. A listener cannot close a hung connection, which would occupy a place in the common pool
        // forever.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(LIVES)
            .connect_lazy_with((*self.lines.pool.connect_options()).clone());
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let listener = tokio::time::timeout(LIVES * 2, listening)
            .await
            .map_err(|_| no_answer())??;
        Ok(Wakeups { listener })
    }
}

impl Wakeups {
    /// Waits for the next notification and returns its text. None: the connection was cut, so notifications may have
    /// been missed.
    ///
    /// # Errors
    /// If the database is away.
    pub async fn next(&mut self) -> StoreResult<Option<String>> {
        loop {
            if let Ok(reported) = tokio::time::timeout(QUIET_IS_SUSPECT, self.listener.try_recv()).await {
                return Ok(reported?.map(|notification| notification.payload().to_owned()));
            }
            let asked = sqlx::query_scalar!("SELECT 1 AS \"one!\"").fetch_one(&mut self.listener);
            tokio::time::timeout(LIVES, asked)
                .await
                .map_err(|_| no_answer())??;
        }
    }
}
