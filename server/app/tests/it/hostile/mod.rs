//! What a hostile client must not achieve: learn more than its key allows, block the server, or keep others from using it.

mod answers;
mod batches;
mod limits;
mod lists;
mod raw;
mod share;
mod sign_in;
mod slow;
