//! Notifications between processes (LISTEN). A hint, never the only word: what is heard is looked up, and a poll is underneath.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use crate::connection::line::no_answer;
use crate::{Store, StoreResult};

/// A line on which nothing was heard for this long is asked whether it still lives: a hung one is silent too.
const QUIET_IS_SUSPECT: Duration = Duration::from_secs(5);
/// How long it may take to connect, or to say that it lives.
const LIVES: Duration = Duration::from_secs(3);

/// An open ear for one channel; it holds a connection of its own.
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
        // A pool of its own: a hung line cannot be closed by a listener, and would take a place in everybody's pool for ever.
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
    /// The next notification's text; none when the line was cut, so that some may have been missed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn next(&mut self) -> StoreResult<Option<String>> {
        loop {
            if let Ok(heard) = tokio::time::timeout(QUIET_IS_SUSPECT, self.listener.try_recv()).await {
                return Ok(heard?.map(|notification| notification.payload().to_owned()));
            }
            let asked = sqlx::query_scalar!("SELECT 1 AS \"one!\"").fetch_one(&mut self.listener);
            tokio::time::timeout(LIVES, asked)
                .await
                .map_err(|_| no_answer())??;
        }
    }
}
