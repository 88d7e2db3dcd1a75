//! The pure rules of Deadbeat.
//!
//! Everything that Deadbeat watches is a **switch**: something that must be heard from before a deadline. A signal re-arms it
//! ([`monitor::transition::on_ping`], [`celery::switch::on_alive`]), silence trips it ([`monitor::transition::silence::on_silence`], [`celery::switch::on_silence`]), and what
//! follows from a changed status is decided here and carried out elsewhere.
//!
//! Nothing in this crate does I/O, is async or reads the clock: `now` is an argument. What is wrong with a rule can therefore be
//! shown by a unit test beside it.
//!
//! | question | file |
//! | --- | --- |
//! | when is the next report expected? | [`schedule`], and a file for each kind: [`schedule::cron`], [`schedule::quartz`], [`schedule::celery_crontab`], [`schedule::solar`], [`schedule::calendar`] |
//! | which slot does a report satisfy? | `slot` |
//! | when is a monitor declared down? | [`monitor::deadline`] |
//! | what does a ping change, and what does silence? | [`monitor::transition`] |
//! | when is a Beat or a worker declared down? | [`celery::switch`], [`celery::worker`] |
//! | which process owns a run, and has it ended? | [`celery::beat::incarnation`], [`celery::worker::orphan`], [`celery::worker::succession`] |
//! | what is wrong with a queue or a broker, and for how long must it last? | [`celery::queue`], [`celery::condition`] |
//! | which processes report as one Beat, and do two of them run at once? | [`celery::beat::incarnation`] |
//! | does a Beat crash again and again? | [`celery::beat::crash_loop`] |
//! | which of several Beats of one name does a monitor belong to? | [`celery::beat::lineage`] |
//! | which workers take messages and report nothing? | [`celery::worker::stranger`] |
//! | is a whole host lost, or a part of it? | [`celery::host`] |
//! | does the result backend answer? | [`celery::result_backend`] |
//! | who is not blamed for what we may have missed? | [`judge::blind_spell`] |
//! | up to when may silence be judged? | [`judge::hearing`] |
//! | which run does an end belong to? | [`monitor::run`] |
//! | which of two signals came first? | [`monitor::order`] |
//! | what do the told stages of a run come to? | [`celery::trace`] |
//! | which text may enter, and what may be pasted? | [`text`], [`incident::command`] |
//! | how often may something happen, and who is slowed down who guesses passwords? | [`people::rate`], [`people::guessing`] |
//! | what does an alert say, who hears of it, and when is a send tried again? | [`alert`], [`alert::message`], [`alert::recipients`], [`alert::delivery`] |

pub mod alert;
pub mod celery;
pub mod change;
pub mod ids;
pub mod incident;
pub mod json;
pub mod judge;
pub mod limits;
pub mod monitor;
pub mod people;
pub mod schedule;
#[cfg(test)]
mod shared_rules;
pub mod text;
pub mod time;
