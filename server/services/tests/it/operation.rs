//! What keeps Deadbeat itself at work.

mod listening;
mod migrate;
mod retention;
mod unheard;
mod watchdog;
