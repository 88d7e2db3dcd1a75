//! A lost host, for an incident.

use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_store::celery::host::Resident;
use deadbeat_store::incident::member::Affected;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// The most names of parts in the name of a host.
const NAMES: usize = 3;

/// A host, and its silent parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The id of the incident's subject.
    pub id: Uuid,
    /// The project that owns it.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// The parts that have not reported again, Beats first.
    pub silent: Vec<Resident>,
    /// The parts that report again.
    pub back: Vec<Resident>,
    /// True if runs that its Beat sent later have begun on other hosts.
    pub works: bool,
    /// The monitors that its Beats schedule, or whose open runs belong to its workers, as far as is known when the incident opens.
    pub affected: Affected,
}

impl Host {
    pub(super) fn of(silent: Vec<Resident>, works: bool) -> Option<Self> {
        let first = silent.first()?;
        let project_id = first.project_id;
        let digest = Sha256::digest(format!("{project_id}/{}", first.machine));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let mut names: Vec<&str> = silent.iter().filter_map(|one| one.host.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        let more = if names.len() > NAMES { ", …" } else { "" };
        names.truncate(NAMES);
        let name = match names.as_slice() {
            [] => "unnamed".to_owned(),
            names => format!("{}{more}", names.join(", ")),
        };
        Some(Self {
            id: Builder::from_random_bytes(bytes).into_uuid(),
            project_id,
            name,
            silent,
            back: Vec::new(),
            works,
            affected: Affected::default(),
        })
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject {
            kind: SubjectKind::Host,
            id: self.id,
            name: self.name.clone(),
        }
    }
}
