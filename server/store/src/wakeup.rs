//! Notifications between processes (LISTEN). A hint, never the only word: what is heard is looked up, and a poll is underneath.

use sqlx::postgres::PgListener;

use crate::{Store, StoreResult};

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
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(channel).await?;
        Ok(Wakeups { listener })
    }
}

impl Wakeups {
    /// The next notification's text; none when the line was cut, so that some may have been missed.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn next(&mut self) -> StoreResult<Option<String>> {
        let heard = self.listener.try_recv().await?;
        Ok(heard.map(|notification| notification.payload().to_owned()))
    }
}
