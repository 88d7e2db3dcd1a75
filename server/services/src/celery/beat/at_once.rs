//! Processes of one Beat that run at once, as an incident shows them.

use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_store::celery::beat::lineage::Listed;

/// Several processes of one Beat, which run at once or of which some are silent, and the entries that they list.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOnce {
    /// The processes that the incident is about.
    pub processes: Vec<Incarnation>,
    /// The entries that each lineage of that Beat lists.
    pub listed: Vec<Listed>,
}
