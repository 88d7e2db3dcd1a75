//! Who may do what in a project, and limits on what each may do.

pub mod access;
pub mod account;
pub mod audit;
pub mod device;
pub mod guessing;
pub mod key;
pub mod key_limit;
pub mod password;
pub mod permission;
pub mod rate;
pub mod role;
