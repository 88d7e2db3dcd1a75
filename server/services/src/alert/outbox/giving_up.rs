//! Repair steps for a fault that nobody means to repair.

use deadbeat_domain::incident::command::Command;
use deadbeat_domain::incident::{Repair, Subject, SubjectKind};

use crate::Site;

/// Returns the steps for a subject that has been down for 14 days. A person mutes or deletes the subject; Deadbeat never does.
pub(super) fn steps(site: &Site, subject: &Subject) -> Vec<Repair> {
    let address = |rest: &str| format!("{}/api/v1/{rest}", site.url);
    let (post, delete) = (
        Command::new(r#"curl -fsS -X POST -H "Authorization: Bearer $API_KEY""#),
        Command::new(r#"curl -fsS -X DELETE -H "Authorization: Bearer $API_KEY""#),
    );
    match subject.kind {
        SubjectKind::Monitor => vec![
            Repair::command(
                "If it stays broken for now, mute it: no alert comes until somebody ends the mute.",
                post.arg(&address(&format!("monitors/{}/mute", subject.id))),
            ),
            Repair::command(
                "If nobody needs it any more, delete it.",
                delete.arg(&address(&format!("monitors/{}", subject.id))),
            ),
        ],
        SubjectKind::Beat => vec![Repair::command(
            "If this Beat will not run again, delete it with the monitors of its entries.",
            delete.arg(&address(&format!("beats/{}", subject.id))),
        )],
        _ => vec![Repair::advice(
            "If nobody means to repair it, acknowledge the incident: then no more reminders come.",
        )],
    }
}
