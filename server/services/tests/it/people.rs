//! Tests of permissions.

mod permission;
