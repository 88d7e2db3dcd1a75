//! The pages behind the links of mails.

pub mod confirm;
pub mod unsubscribe;
