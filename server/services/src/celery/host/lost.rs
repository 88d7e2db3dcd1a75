//! A lost host, as an incident shows it.

use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::incident::{Subject, SubjectKind};
use deadbeat_store::celery::host::Resident;
use deadbeat_store::incident::member::Affected;
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// Names that the host of an incident is made of.
const NAMES: usize = 3;

/// A host, and what of it is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// The subject.
    pub id: Uuid,
    /// Whose it is.
    pub project_id: ProjectId,
    /// As it is called.
    pub name: String,
    /// What has not been heard again, Beats first.
    pub silent: Vec<Resident>,
    /// What is heard again.
    pub back: Vec<Resident>,
    /// Runs that its Beat sent later have begun elsewhere.
    pub works: bool,
    /// The monitors that its Beats schedule or whose runs its workers had open, as far as is known when it is told.
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
