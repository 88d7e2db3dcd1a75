//! Slows down work that one project could request without end. Its pieces run one after the other, with pauses. They therefore use only a part of one
//! core, however many are requested (DESIGN, invariant 4).

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadbeat_domain::ids::ProjectId;
use deadbeat_store::connection::turns::{Turn, Turns};
use tokio::sync::Semaphore;

use crate::ServiceError;

/// The most time that the pauses within a piece take: a client waits for the answer, and the SDK waits only two seconds.
const PAUSES_WITHIN: Duration = Duration::from_secs(1);
/// The longest pause after a piece: the piece may only have taken long because of another project.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// The most requests of one project that wait for one kind of work. Each keeps its body of up to 100 kB in memory.
const QUEUE: usize = 500;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Work that a project's keys may request repeatedly, and that takes the database or a core long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// A ping creates its monitor.
    CreateMonitor,
    /// Monitors are changed to match a Beat's schedule.
    FollowSchedule,
    /// A ping key snoozes: which alerts wait is then decided again.
    Snooze,
    /// A rehearsal of a channel's templates, or a preview.
    Render,
}

impl Work {
    /// Returns how many times longer than the work its pause is. Measured beside a project that sends requests without end (`scripts/soak -k
    /// neighbour`): pings of another project take less than twice as long (p99). This holds beside creations, and beside schedules whose senders wait
    /// for an answer.
    fn pauses(self) -> u32 {
        match self {
            Self::CreateMonitor | Self::Snooze => 8,
            Self::FollowSchedule | Self::Render => 3,
        }
    }
}

/// Gives out the pieces of work. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Paces {
    turns: Arc<Turns<(ProjectId, Work)>>,
}

impl Default for Paces {
    fn default() -> Self {
        Self {
            turns: Arc::new(Turns::new(Semaphore::MAX_PERMITS, 1, PATIENCE).with_queue(QUEUE)),
        }
    }
}

impl Paces {
    /// Waits until the project may begin the next piece of this work.
    ///
    /// # Errors
    /// If too many requests wait, or the request does not get its turn in time.
    pub(crate) async fn take(&self, project: ProjectId, work: Work) -> Result<Piece, ServiceError> {
        let turn = self.turns.take((project, work)).await.ok_or(ServiceError::Busy)?;
        Ok(Piece {
            turn: Some(turn),
            work,
            began: Instant::now(),
            paused: Duration::ZERO,
            owed: Duration::ZERO,
        })
    }
}

/// A piece of work in progress. Dropping it starts a pause, after which the project's next piece may begin. Other projects do not wait for that.
pub(crate) struct Piece {
    turn: Option<Turn>,
    work: Work,
    /// When the piece began, or when its last pause ended.
    began: Instant,
    /// The total time of the pauses so far.
    paused: Duration,
    /// The pauses that are postponed until the piece ends.
    owed: Duration,
}

impl Piece {
    /// Pauses within the work if about `to_come` more pauses will follow. Each pause gets its share of the remaining time.
    pub(crate) async fn pause(&mut self, to_come: usize) {
        let due = self.due();
        let part = u32::try_from(to_come).unwrap_or(u32::MAX).saturating_add(1);
        let pause = due.min((PAUSES_WITHIN - self.paused) / part);
        tokio::time::sleep(pause).await;
        self.paused += pause;
        self.owed += due - pause;
        self.began = Instant::now();
    }

    /// Returns the pause for the work since the last pause.
    fn due(&self) -> Duration {
        self.began.elapsed() * self.work.pauses()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let (turn, pause) = (self.turn.take(), (self.owed + self.due()).min(LONGEST_PAUSE));
        // Pause even if the client disconnected: otherwise it could send its next request at once.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(pause).await;
                drop(turn);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_next_piece_of_a_project_begins_after_a_pause_and_anothers_at_once() {
        let paces = Paces::default();
        let (flood, other) = (ProjectId::generate(), ProjectId::generate());
        let mut piece = paces.take(flood, Work::CreateMonitor).await.unwrap();
        // Pretend that the piece took a second, so that the longest pause follows.
        piece.began = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        drop(piece);
        // Let the task run that the drop has spawned.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }

        let next = paces.take(flood, Work::CreateMonitor);
        assert!(next.now_or_never().is_none(), "not without a pause");
        for (project, work) in [(other, Work::CreateMonitor), (flood, Work::FollowSchedule)] {
            assert!(
                matches!(paces.take(project, work).now_or_never(), Some(Ok(_))),
                "no wait"
            );
        }
        // After short work the pause is short, and over when the next request waits.
        let other_piece = paces.take(other, Work::FollowSchedule).await.unwrap();
        drop(other_piece);
        paces.take(other, Work::FollowSchedule).await.unwrap();
    }

    #[tokio::test]
    async fn pauses_within_a_piece_are_bounded_and_the_rest_comes_after_it() {
        let paces = Paces::default();
        let mut piece = paces
            .take(ProjectId::generate(), Work::FollowSchedule)
            .await
            .unwrap();
        piece.paused = PAUSES_WITHIN;
        piece.began = Instant::now().checked_sub(Duration::from_millis(100)).unwrap();

        // Returns at once, because the pauses are used up.
        piece.pause(0).await;

        assert_eq!(piece.paused, PAUSES_WITHIN);
        assert!(piece.owed >= Duration::from_millis(300), "{:?}", piece.owed);
    }

    #[tokio::test]
    async fn pauses_to_come_have_their_part_of_the_time() {
        let paces = Paces::default();
        let mut piece = paces
            .take(ProjectId::generate(), Work::FollowSchedule)
            .await
            .unwrap();
        piece.began = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();

        piece.pause(99).await;

        assert_eq!(piece.paused, PAUSES_WITHIN / 100);
    }

    #[tokio::test]
    async fn those_that_wait_are_bounded() {
        let paces = Paces::default();
        let project = ProjectId::generate();
        let _first = paces.take(project, Work::CreateMonitor).await.unwrap();
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| Box::pin(paces.take(project, Work::CreateMonitor)))
            .map(|mut one| one.as_mut().now_or_never().is_none().then_some(one))
            .collect();
        assert!(waiting.iter().all(Option::is_some), "each of them waits");

        let refused = paces.take(project, Work::CreateMonitor).now_or_never();

        assert!(
            matches!(refused, Some(Err(ServiceError::Busy))),
            "refused at once"
        );
    }
}
