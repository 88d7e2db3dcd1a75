//! The processes of one Beat that run at once, for an incident.

use deadbeat_domain::celery::beat::incarnation::Incarnation;
use deadbeat_store::celery::beat::lineage::Listed;

/// Several processes of one Beat, which run at once or of which some are silent, and the entries in their schedules.
#[derive(Debug, Clone, PartialEq)]
pub struct AtOnce {
    /// The processes with the fault of the incident.
    pub processes: Vec<Incarnation>,
    /// The entries in the schedule of each lineage of that Beat.
    pub listed: Vec<Listed>,
}
