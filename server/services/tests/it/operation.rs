//! Tests of the operation of Deadbeat itself.

mod listening;
mod migrate;
mod retention;
mod unjudged;
mod watchdog;
