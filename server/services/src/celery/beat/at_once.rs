//! Processes of one Beat that run at once, as an incident shows them.

use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_store::celery::beat::lineage::Listed;

/// Processes of one Beat that run at once, or of which some are silent, and what they list.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOnce {
    /// The processes it is about.
    pub processes: Vec<Incarnation>,
    /// What the lineages of that Beat list.
    pub listed: Vec<Listed>,
}
