//! Projects, members, invitations, API keys, and the audit trail.

pub mod api_key;
pub mod audit;
pub mod figures;
pub mod invitation;
pub mod member;
pub mod project;
