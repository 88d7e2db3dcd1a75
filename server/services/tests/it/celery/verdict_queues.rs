//! The answer to a report names queues to sample. A ping key cannot read, so the answer names only queues that were reported with that key.

use deadbeat_domain::ids::ApiKeyId;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_services::celery::event::{self, EventBatch, Verdict};
use deadbeat_services::people::api_key;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::World;

impl World {
    async fn ping_key(&self, name: &str) -> ApiKeyId {
        let (key, _) = api_key::issue(&self.services, &self.access, name, Scope::Ping)
            .await
            .unwrap();
        key.id
    }

    /// Sends one event with a key. Returns the queues that the answer asks the sender to sample.
    async fn queues_answered(&self, key: ApiKeyId, kind: &str, rest: Value) -> Option<Vec<String>> {
        let batch = json!({"sent_at": self.now(), "events": [self.an_event(kind, rest)]});
        let batch: EventBatch = serde_json::from_value(batch).unwrap();
        let scope = Scope::Ping;
        let access = Access::new(self.project, Actor::Key { id: key, scope });
        let verdicts = event::accept(&self.services, &access, batch, self.now(), None)
            .await
            .unwrap();
        match verdicts.into_iter().next().unwrap().1 {
            Verdict::Received {
                samples: true,
                queues,
            } => Some(queues),
            Verdict::Ticked {
                samples,
                queues,
                attended,
            } => {
                // The same rule limits the queues named for the canary.
                let unjudged: Vec<_> = attended.iter().filter(|name| !queues.contains(name)).collect();
                assert!(!samples || unjudged.is_empty(), "{unjudged:?} of {attended:?}");
                samples.then_some(queues)
            }
            Verdict::Accepted | Verdict::Received { .. } => None,
            rejected @ Verdict::Rejected { .. } => panic!("{rejected:?}"),
        }
    }

    async fn works(&self, key: ApiKeyId, worker: &str, queue: &str) -> Option<Vec<String>> {
        let snapshot = json!({"app": "shop", "worker": worker, "state": "running", "period_seconds": 5, "queues": [queue]});
        self.queues_answered(key, "worker_snapshot", snapshot).await
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_key_learns_of_the_queues_of_an_application_that_were_named_with_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (ours, theirs) = (world.ping_key("ours").await, world.ping_key("theirs").await);
    let queue = |name: &str| json!({"name": name, "depth": 3});

    assert_eq!(
        world.works(ours, "w1", "secret").await,
        Some(vec!["secret".to_owned()])
    );
    assert_eq!(
        world.works(ours, "w2", "more").await,
        None,
        "the first worker samples"
    );
    let sample = json!({"app": "shop", "reachable": true, "queues": [queue("waits")]});
    world.queues_answered(ours, "broker_sample", sample).await;
    assert_eq!(
        world.works(ours, "w1", "secret").await,
        Some(vec!["waits".to_owned(), "more".to_owned(), "secret".to_owned()])
    );

    // A client with another key reports the end of the sampling worker. It then sends a heartbeat, to sample in the worker's place.
    let gone = json!({"app": "shop", "worker": "w1", "state": "stopping", "period_seconds": 5});
    world.queues_answered(theirs, "worker_snapshot", gone).await;
    let alive = json!({"beat": "shop", "period_seconds": 15, "grace_seconds": 60});
    let alerted = world.queues_answered(theirs, "beat_alive", alive.clone()).await;

    assert_eq!(alerted, Some(Vec::new()));
    api_key::revoke(&world.services, &world.access, ours)
        .await
        .unwrap();
    let alerted = world.queues_answered(theirs, "beat_alive", alive).await.unwrap();
    assert_eq!(alerted, ["waits", "more", "secret"], "the other key is revoked");
}
