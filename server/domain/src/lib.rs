//! The pure rules of Deadbeat.
//!
//! Everything that Deadbeat watches is a **switch**: something that must be heard from before a deadline. A signal re-arms it
//! ([`transition::on_ping`], [`switch::on_alive`]), silence trips it ([`transition::on_silence`], [`switch::on_silence`]), and what
//! follows from a changed status is decided here and carried out elsewhere.
//!
//! Nothing in this crate does I/O, is async or reads the clock: `now` is an argument. What is wrong with a rule can therefore be
//! shown by a unit test beside it.
//!
//! | question | file |
//! | --- | --- |
//! | when is the next report expected? | [`schedule`], and a file for each kind: [`cron`], [`quartz`], [`celery_crontab`], [`solar`], [`calendar`] |
//! | which slot does a report satisfy? | `slot` |
//! | when is a monitor declared down? | [`deadline`] |
//! | what does a ping change, and what does silence? | [`transition`] |
//! | when is a Beat or a worker declared down? | [`switch`], [`worker`] |
//! | which process owns a run, and has it ended? | [`incarnation`], [`orphan`], [`succession`] |
//! | what is wrong with a queue or a broker, and for how long must it last? | [`queue`], [`condition`] |
//! | which processes report as one Beat, and do two of them run at once? | [`incarnation`] |
//! | does a Beat crash again and again? | [`crash_loop`] |
//! | which of several Beats of one name does a monitor belong to? | [`lineage`] |
//! | which workers take messages and report nothing? | [`stranger`] |
//! | is a whole host lost, or a part of it? | [`host`] |
//! | does the result backend answer? | [`result_backend`] |
//! | who is not blamed for what we may have missed? | [`blind_spell`] |
//! | up to when may silence be judged? | [`hearing`] |
//! | which run does an end belong to? | [`run`] |
//! | which of two signals came first? | [`order`] |
//! | what do the told stages of a run come to? | [`trace`] |
//! | which text may enter, and what may be pasted? | [`text`], [`command`] |
//! | how often may something happen, and who is slowed down who guesses passwords? | [`rate`], [`guessing`] |
//! | what does an alert say, who hears of it, and when is a send tried again? | [`alert`], [`message`], [`recipients`], [`delivery`] |

pub mod alert;
pub mod baseline;
pub mod beat;
pub mod blind_spell;
pub mod calendar;
pub mod cause;
pub mod celery_crontab;
pub mod channel;
pub mod command;
pub mod condition;
pub mod crash_loop;
pub mod cron;
pub mod deadline;
pub mod delivery;
pub mod evidence;
pub mod expiry;
pub mod expression;
pub mod flow;
mod fold;
pub mod guessing;
pub mod hearing;
pub mod host;
pub mod host_load;
pub mod ids;
pub mod incarnation;
pub mod incident;
pub mod json;
pub mod key;
pub mod limits;
pub mod lineage;
pub mod message;
pub mod monitor;
pub mod order;
pub mod orphan;
pub mod ping;
pub mod project;
pub mod quartz;
pub mod queue;
pub mod rate;
pub mod reach;
pub mod recipients;
pub mod result_backend;
pub mod run;
pub mod schedule;
#[cfg(test)]
mod shared_rules;
pub mod slot;
pub mod solar;
pub mod status;
pub mod stranger;
pub mod succession;
pub mod switch;
pub mod text;
pub mod time;
pub mod trace;
pub mod transition;
mod wall;
pub mod worker;
pub mod worker_incarnation;
pub mod zone;
