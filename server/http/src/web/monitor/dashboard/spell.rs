//! The latest blind spell, as the dashboard shows it.

use chrono::{DateTime, TimeDelta, Utc};
use deadbeat_store::page::Page;
use deadbeat_store::{Reader, StoreResult};

use crate::web::format::{self, Moment};

/// How long after its end the page shows a blind spell.
const SPELL_SHOWN: TimeDelta = TimeDelta::hours(24);

/// The last blind spell, while it may still matter to a reader.
pub(super) struct Spell {
    pub(super) from: Moment,
    pub(super) to: Moment,
    pub(super) length: String,
}

impl Spell {
    pub(super) async fn latest(reader: &Reader, now: DateTime<Utc>) -> StoreResult<Option<Self>> {
        let newest = Page {
            after: None,
            limit: 1,
        };
        let spells = deadbeat_store::operation::listener::list_spells(reader, newest).await?;
        let spell = spells.into_iter().map(|listed| listed.spell).next();
        Ok(spell
            .filter(|spell| now - spell.ended_at < SPELL_SHOWN)
            .map(|spell| Self {
                from: Moment::at(spell.started_at, now),
                to: Moment::at(spell.ended_at, now),
                length: format::span(spell.ended_at - spell.started_at),
            }))
    }
}
