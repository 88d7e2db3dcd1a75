//! What a hostile client may not do: learn more than its key allows, hold the server, or shut others out.

mod answers;
mod raw;
mod slow;
