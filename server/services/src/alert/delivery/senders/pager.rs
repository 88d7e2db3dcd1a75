//! Services that page people, and services that keep alerts for such services. Each incident becomes one alert there.

pub mod alertmanager;
pub mod apprise;
mod check;
pub(super) mod event;
pub mod github;
pub mod incident_io;
pub mod jira_service_management;
mod markdown;
pub mod pagerduty;
mod plain;
pub mod splunk_on_call;
