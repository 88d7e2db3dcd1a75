//! What a hostile client may not do: learn more than its key allows, hold the server, or shut others out.

mod answers;
mod batches;
mod limits;
mod lists;
mod raw;
mod share;
mod sign_in;
mod slow;
