//! The pure rules of Deadbeat.
//!
//! Everything that Deadbeat watches is a **switch**: something that must report before a deadline.
//! * A signal moves the deadline on: [`monitor::transition::on_ping`], [`celery::switch::on_heartbeat`].
//! * Silence past the deadline trips the switch: [`monitor::transition::silence::on_silence`],
//!   [`celery::switch::on_silence`].
//!
//! This crate decides what follows from a changed status. The crates above carry it out.
//!
//! Nothing in this crate does I/O, is async or reads the clock: `now` is an argument. So a unit test beside a rule can
//! show what the rule does at any time.
//!
//! | question | file |
//! | --- | --- |
//! | when is the next report expected? | [`schedule`], with one file a kind: [`schedule::cron`], [`schedule::quartz`], [`schedule::celery_crontab`], [`schedule::solar`], [`schedule::calendar`] |
//! | which slot does a report satisfy? | `slot` |
//! | when is a monitor declared down? | [`monitor::deadline`] |
//! | what does a ping change, and what does silence? | [`monitor::transition`] |
//! | when is a Beat or a worker declared down? | [`celery::switch`], [`celery::worker`] |
//! | which process owns a run, and has it ended? | [`celery::beat::incarnation`], [`celery::worker::orphan`], [`celery::worker::succession`] |
//! | what is wrong with a queue or a broker, and for how long must it last? | [`celery::queue`], [`celery::condition`] |
//! | which processes report as one Beat, and do two of them run at once? | [`celery::beat::incarnation`] |
//! | does a Beat crash again and again? | [`celery::beat::crash_loop`] |
//! | which of several Beats of one name does a monitor belong to? | [`celery::beat::lineage`] |
//! | which workers consume messages and do not report? | [`celery::worker::stranger`] |
//! | is a whole host lost, or a part of it? | [`celery::host`] |
//! | does the result backend answer? | [`celery::result_backend`] |
//! | which monitors stay up because Deadbeat may have missed their reports? | [`judge::blind_spell`] |
//! | up to when may silence be judged? | [`judge::reception`] |
//! | which run does an end belong to? | [`monitor::run`] |
//! | which of two signals came first? | [`monitor::order`] |
//! | what state do the reported stages of a run yield? | [`celery::trace`] |
//! | which text may enter, and which may be pasted into a shell? | [`text`], [`incident::command`] |
//! | how often may something happen, and how is password guessing slowed down? | [`people::rate`], [`people::guessing`] |
//! | which changes does a reader of the change feed get, and has it missed some? | [`change::feed`] |
//! | what does an alert say, which channels get it, and when is a send retried? | [`alert`], [`alert::message`], [`alert::recipients`], [`alert::delivery`] |
//! | who is on call, and who is notified of an incident that nobody acknowledges? | [`alert::rotation`], [`alert::escalation`] |

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
