//! Rotations and escalation policies: what Deadbeat stores, what it refuses, and what cannot be deleted.

use deadbeat_domain::alert::escalation::PolicySettings;
use deadbeat_domain::alert::rotation::RotationSettings;
use deadbeat_domain::ids::{ChannelId, EscalationPolicyId, RotationId};
use deadbeat_domain::limits;
use deadbeat_services::ServiceError;
use deadbeat_services::alert::{channel, policy, rotation};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::setup::World;

/// Settings of a rotation of these people and their channels. Each person has a day, from noon of the first date on.
pub fn settings(people: &[(&str, &[ChannelId])]) -> Value {
    let names: Vec<&str> = people.iter().map(|(name, _)| *name).collect();
    let people: Vec<Value> = people
        .iter()
        .map(|(name, channels)| json!({"name": name, "channels": channels}))
        .collect();
    json!({
        "name": "Primary",
        "timezone": "UTC",
        "people": people,
        "layers": [{"people": names, "handover": "daily", "at": "12:00", "starts_on": "2026-03-01"}],
    })
}

/// A step of a policy that is due after some seconds.
pub fn step(seconds: u32, targets: &[(&str, uuid::Uuid)]) -> Value {
    let targets: Vec<Value> = targets
        .iter()
        .map(|(kind, id)| json!({"kind": kind, "id": id}))
        .collect();
    json!({"delay_seconds": seconds, "targets": targets})
}

impl World {
    pub async fn rotation(&self, settings: Value) -> Result<RotationId, ServiceError> {
        let settings: RotationSettings = serde_json::from_value(settings).unwrap();
        let stored = rotation::create(&self.services, &self.access, settings).await?;
        Ok(stored.id)
    }

    pub async fn policy(&self, settings: Value) -> Result<EscalationPolicyId, ServiceError> {
        let settings: PolicySettings = serde_json::from_value(settings).unwrap();
        let stored = policy::create(&self.services, &self.access, settings).await?;
        Ok(stored.id)
    }
}

fn pointers<T: std::fmt::Debug>(refused: Result<T, ServiceError>) -> Vec<String> {
    match refused {
        Err(ServiceError::Invalid(faults)) => faults.into_iter().map(|fault| fault.pointer).collect(),
        other => panic!("{other:?}"),
    }
}

fn conflict<T: std::fmt::Debug>(refused: Result<T, ServiceError>) -> String {
    match refused {
        Err(ServiceError::Conflict(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn what_another_project_has_or_nobody_cannot_be_named(pool: PgPool) {
    let world = World::new(pool.clone()).await;
    let other = World::new(pool).await;
    let (own, foreign) = (world.channel("own").await, other.channel("foreign").await);
    let theirs = other.rotation(settings(&[("Ann", &[foreign])])).await.unwrap();
    let ours = world.rotation(settings(&[("Ann", &[own])])).await.unwrap();

    let named = world
        .rotation(settings(&[("Ann", &[own]), ("Ben", &[own, foreign])]))
        .await;
    assert_eq!(pointers(named), ["/people/1/channels/1"]);
    let changed = rotation::update(&world.services, &world.access, ours, |settings| {
        settings.name = "Changed".to_owned();
        settings.people[0].channels = vec![ChannelId::generate()];
    });
    assert_eq!(pointers(changed.await), ["/people/0/channels/0"]);
    let steps = [
        step(0, &[("channel", own.0), ("rotation", theirs.0)]),
        step(60, &[("channel", foreign.0)]),
    ];
    let named = world.policy(json!({"name": "Bad", "steps": steps})).await;
    assert_eq!(
        pointers(named),
        ["/steps/0/targets/1/id", "/steps/1/targets/0/id"]
    );

    // Refused requests store nothing, not even in part.
    let names = "SELECT count(*) FROM rotation WHERE settings ->> 'name' = 'Primary'";
    assert_eq!(world.count(names).await, 2);
    assert_eq!(world.count("SELECT count(*) FROM rotation").await, 2);
    assert_eq!(world.count("SELECT count(*) FROM escalation_policy").await, 0);
    // Another project cannot change or delete them either.
    let renamed = rotation::update(&world.services, &world.access, theirs, |_| {}).await;
    assert!(matches!(renamed, Err(ServiceError::NotFound(_))));
    let deleted = rotation::delete(&world.services, &world.access, theirs).await;
    assert!(matches!(deleted, Err(ServiceError::NotFound(_))));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_or_a_rotation_in_use_is_not_deleted(pool: PgPool) {
    let world = World::new(pool).await;
    let (services, access) = (&world.services, &world.access);
    let (of_ann, direct) = (world.channel("ann").await, world.channel("direct").await);
    let primary = world.rotation(settings(&[("Ann", &[of_ann])])).await.unwrap();
    let steps = [
        step(0, &[("rotation", primary.0)]),
        step(60, &[("channel", direct.0)]),
    ];
    let default = world
        .policy(json!({"name": "Default", "steps": steps}))
        .await
        .unwrap();

    for (refused, user) in [
        (
            channel::delete(services, access, of_ann).await,
            "rotation \"Primary\"",
        ),
        (
            channel::delete(services, access, direct).await,
            "escalation policy \"Default\"",
        ),
        (
            rotation::delete(services, access, primary).await,
            "escalation policy \"Default\"",
        ),
    ] {
        let text = conflict(refused);
        assert!(text.contains(user), "{text}");
    }
    assert_eq!(world.count("SELECT count(*) FROM channel").await, 2);

    policy::delete(services, access, default).await.unwrap();
    rotation::delete(services, access, primary).await.unwrap();
    channel::delete(services, access, of_ann).await.unwrap();
    channel::delete(services, access, direct).await.unwrap();
}

/// One request names a channel while another deletes it: Deadbeat refuses one of the two.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_channel_is_not_deleted_while_a_rotation_comes_to_name_it(pool: PgPool) {
    let world = World::new(pool).await;
    let (services, access) = (&world.services, &world.access);

    for round in 0..20 {
        let channel = world.channel(&format!("round-{round}")).await;
        let (named, deleted) = tokio::join!(
            world.rotation(settings(&[("Ann", &[channel])])),
            channel::delete(services, access, channel)
        );
        assert_ne!(named.is_ok(), deleted.is_ok(), "{named:?} {deleted:?}");
        if let Ok(rotation) = named {
            rotation::delete(services, access, rotation).await.unwrap();
        }
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_project_has_one_default_and_a_limited_number_of_each(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let steps = [step(0, &[("channel", channel.0)])];
    let tagged = |tag: &str| json!({"name": tag, "match": {"tags": [tag]}, "steps": steps});
    let default = json!({"name": "Default", "steps": steps});
    world.policy(default.clone()).await.unwrap();
    let other = world.policy(tagged("t0")).await.unwrap();

    assert!(conflict(world.policy(default).await).contains("default"));
    let changed = policy::update(&world.services, &world.access, other, |settings| {
        settings.matching = None;
    });
    assert!(conflict(changed.await).contains("default"));

    for number in 2..limits::PROJECT_POLICIES {
        world.policy(tagged(&format!("t{number}"))).await.unwrap();
    }
    let more = world.policy(tagged("more")).await;
    assert!(matches!(more, Err(ServiceError::Limit { .. })), "{more:?}");
    for _ in 0..limits::PROJECT_ROTATIONS {
        world.rotation(settings(&[("Ann", &[channel])])).await.unwrap();
    }
    let more = world.rotation(settings(&[("Ann", &[channel])])).await;
    assert!(matches!(more, Err(ServiceError::Limit { .. })), "{more:?}");
}
