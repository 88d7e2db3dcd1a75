//! Hashing of passwords, outside the async threads.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use tokio::sync::Semaphore;

use crate::ServiceError;

/// How long a sign-in waits for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hashes and verifies passwords outside the async threads, two at a time: each needs 19 MiB and about 25 ms of CPU time.
#[derive(Debug, Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(2)),
        }
    }
}

impl Passwords {
    pub(crate) async fn hash(&self, password: String) -> Result<String, ServiceError> {
        self.work(move || {
            Argon2::default()
                .hash_password(password.as_bytes())
                .map(|hash| hash.to_string())
                .ok()
        })
        .await?
        .ok_or(ServiceError::Busy)
    }

    /// Verifies a password. Takes equally long for an unknown account, so that the time reveals nothing.
    pub(crate) async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, ServiceError> {
        self.work(move || {
            static NOBODY: OnceLock<String> = OnceLock::new();
            let known = stored.is_some();
            let stored = stored.unwrap_or_else(|| {
                NOBODY
                    .get_or_init(|| {
                        Argon2::default()
                            .hash_password(b"nobody")
                            .map(|hash| hash.to_string())
                            .unwrap_or_default()
                    })
                    .clone()
            });
            let right = PasswordHash::new(&stored).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.as_bytes(), &hash)
                    .is_ok()
            });
            known && right
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Err(ServiceError::Busy);
        };
        let done = tokio::task::spawn_blocking(move || {
            let done = job();
            drop(turn);
            done
        });
        done.await.map_err(|_| ServiceError::Busy)
    }
}
