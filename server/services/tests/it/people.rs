//! Who may do what.

mod permission;
