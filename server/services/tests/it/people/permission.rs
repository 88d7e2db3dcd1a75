//! Each use case that a person or a key can reach checks the permission of its caller, for every role and scope of the domain's table.

use deadbeat_domain::ids::{
    AccountId, ApiKeyId, BeatId, ChannelId, EscalationPolicyId, IncidentId, InvitationId, MonitorId,
    RotationId,
};
use deadbeat_domain::monitor::ping::PingKind::Fail;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::permission::Action;
use deadbeat_domain::people::role::Role;
use deadbeat_services::alert::{channel, policy, rotation};
use deadbeat_services::celery::{beat, event};
use deadbeat_services::incident::acknowledgement;
use deadbeat_services::monitor::Change;
use deadbeat_services::people::invitation::{self, NewInvitation};
use deadbeat_services::people::{api_key, member, project};
use deadbeat_services::{ServiceError, monitor};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::alert::rotation::{settings, step};
use crate::setup::World;

/// A use case that changes something in a project.
#[derive(Debug, Clone, Copy)]
enum UseCase {
    CreateMonitor,
    UpsertMonitor,
    UpdateMonitor,
    PauseMonitor,
    ResumeMonitor,
    DeleteMonitor,
    DeleteBeat,
    CreateByPing,
    AcceptEvents,
    Acknowledge,
    CreateChannel,
    UpdateChannel,
    DeleteChannel,
    TestChannel,
    AskForConfirmation,
    UpdateRotation,
    DeleteRotation,
    UpdatePolicy,
    DeletePolicy,
    IssueKey,
    RotateKey,
    RevokeKey,
    SetRole,
    RemoveMember,
    Invite,
    WithdrawInvitation,
    UpdateProject,
}

const USE_CASES: [UseCase; 27] = [
    UseCase::CreateMonitor,
    UseCase::UpsertMonitor,
    UseCase::UpdateMonitor,
    UseCase::PauseMonitor,
    UseCase::ResumeMonitor,
    UseCase::DeleteMonitor,
    UseCase::DeleteBeat,
    UseCase::CreateByPing,
    UseCase::AcceptEvents,
    UseCase::Acknowledge,
    UseCase::CreateChannel,
    UseCase::UpdateChannel,
    UseCase::DeleteChannel,
    UseCase::TestChannel,
    UseCase::AskForConfirmation,
    UseCase::UpdateRotation,
    UseCase::DeleteRotation,
    UseCase::UpdatePolicy,
    UseCase::DeletePolicy,
    UseCase::IssueKey,
    UseCase::RotateKey,
    UseCase::RevokeKey,
    UseCase::SetRole,
    UseCase::RemoveMember,
    UseCase::Invite,
    UseCase::WithdrawInvitation,
    UseCase::UpdateProject,
];

/// The ids of existing rows in the project.
struct Things {
    monitor: MonitorId,
    beat: BeatId,
    incident: IncidentId,
    channel: ChannelId,
    rotation: RotationId,
    policy: EscalationPolicyId,
    key: ApiKeyId,
}

impl Things {
    /// Ids that no project has.
    fn nowhere() -> Self {
        Self {
            monitor: MonitorId::generate(),
            beat: BeatId::generate(),
            incident: IncidentId::generate(),
            channel: ChannelId::generate(),
            rotation: RotationId::generate(),
            policy: EscalationPolicyId::generate(),
            key: ApiKeyId::generate(),
        }
    }
}

impl UseCase {
    fn action(self) -> Action {
        match self {
            Self::CreateMonitor
            | Self::UpsertMonitor
            | Self::UpdateMonitor
            | Self::PauseMonitor
            | Self::ResumeMonitor
            | Self::DeleteMonitor
            | Self::DeleteBeat => Action::ChangeMonitors,
            Self::CreateByPing | Self::AcceptEvents => Action::Signal,
            Self::Acknowledge => Action::Acknowledge,
            Self::CreateChannel
            | Self::UpdateChannel
            | Self::DeleteChannel
            | Self::TestChannel
            | Self::AskForConfirmation
            | Self::UpdateRotation
            | Self::DeleteRotation
            | Self::UpdatePolicy
            | Self::DeletePolicy => Action::ManageChannels,
            Self::IssueKey | Self::RotateKey | Self::RevokeKey => Action::ManageKeys,
            Self::SetRole | Self::RemoveMember | Self::Invite | Self::WithdrawInvitation => {
                Action::ManageMembers
            }
            Self::UpdateProject => Action::ChangeProject,
        }
    }

    async fn call(self, world: &World, access: &Access, things: &Things) -> Result<(), ServiceError> {
        let services = &world.services;
        let change = Change {
            name: Some("Changed".to_owned()),
            slug: Some(format!("s-{}", Uuid::new_v4().simple())),
            schedule: Some(json!({"kind": "interval", "seconds": 60})),
            ..Change::default()
        };
        let settings = json!({"url": "https://changed.test/"});
        match self {
            Self::CreateMonitor => monitor::create(services, access, &change).await.map(drop),
            Self::UpsertMonitor => {
                let slug = change.slug.clone().unwrap();
                monitor::upsert(services, access, &change, &slug).await.map(drop)
            }
            Self::UpdateMonitor => monitor::update(services, access, things.monitor, &change)
                .await
                .map(drop),
            Self::PauseMonitor => monitor::pause(services, access, things.monitor).await.map(drop),
            Self::ResumeMonitor => monitor::resume(services, access, things.monitor).await.map(drop),
            Self::DeleteMonitor => monitor::delete(services, access, things.monitor).await,
            Self::DeleteBeat => beat::delete(services, access, things.beat).await,
            Self::CreateByPing => monitor::create_by_ping(services, access, &change).await.map(drop),
            Self::AcceptEvents => {
                let alive = json!({"beat": "changed", "period_seconds": 10.0, "grace_seconds": 20.0});
                let events = [world.an_event("beat_alive", alive)];
                let batch = json!({"sent_at": world.now(), "events": events});
                let batch = serde_json::from_value(batch).unwrap();
                event::accept(services, access, batch, world.now(), None)
                    .await
                    .map(drop)
            }
            Self::Acknowledge => acknowledgement::acknowledge(services, access, things.incident)
                .await
                .map(drop),
            Self::CreateChannel => channel::create(services, access, "webhook", "Changed", &settings)
                .await
                .map(drop),
            Self::UpdateChannel => channel::update(services, access, things.channel, Some("Changed"), None)
                .await
                .map(drop),
            Self::DeleteChannel => channel::delete(services, access, things.channel).await,
            Self::TestChannel => channel::send_test(services, access, things.channel)
                .await
                .map(drop),
            Self::AskForConfirmation => channel::ask_again(services, access, things.channel).await,
            Self::UpdateRotation => rotation::update(services, access, things.rotation, |settings| {
                settings.name = "Changed".to_owned();
            })
            .await
            .map(drop),
            Self::DeleteRotation => rotation::delete(services, access, things.rotation).await,
            Self::UpdatePolicy => policy::update(services, access, things.policy, |settings| {
                settings.name = "Changed".to_owned();
            })
            .await
            .map(drop),
            Self::DeletePolicy => policy::delete(services, access, things.policy).await,
            Self::IssueKey => api_key::issue(services, access, "Changed", Scope::Write)
                .await
                .map(drop),
            Self::RotateKey => api_key::rotate(services, access, things.key, None)
                .await
                .map(drop),
            Self::SetRole => member::set_role(services, access, AccountId::generate(), Role::Viewer)
                .await
                .map(drop),
            Self::RemoveMember => member::remove(services, access, AccountId::generate()).await,
            Self::Invite => {
                let new = NewInvitation {
                    email: None,
                    role: Role::Viewer,
                    seconds: None,
                };
                invitation::create(services, access, new).await.map(drop)
            }
            Self::WithdrawInvitation => {
                invitation::withdraw(services, access, InvitationId::generate()).await
            }
            Self::RevokeKey => api_key::revoke(services, access, things.key).await,
            Self::UpdateProject => project::update(services, access, Some("Changed"), None)
                .await
                .map(drop),
        }
    }
}

/// Returns every kind of access to the world's project.
fn everyone(world: &World) -> Vec<Access> {
    let account = Role::ALL.map(|role| Actor::Account {
        id: AccountId::generate(),
        role,
    });
    let key = Scope::ALL.map(|scope| Actor::Key {
        id: ApiKeyId::generate(),
        scope,
    });
    account
        .into_iter()
        .chain(key)
        .chain([Actor::Operator, Actor::System])
        .map(|actor| Access::new(world.project, actor))
        .collect()
}

/// Returns every row that a use case could have changed, as text.
async fn rows(world: &World) -> String {
    let mut text = String::new();
    for table in [
        "project",
        "api_key",
        "monitor",
        "channel",
        "rotation",
        "escalation_policy",
        "beat",
        "incident",
        "delivery",
        "transition",
    ] {
        let query = format!(
            "SELECT coalesce(string_agg(to_jsonb(one)::text, E'\\n' ORDER BY to_jsonb(one)::text), '') FROM {table} AS one"
        );
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&world.pool)
            .await
            .unwrap();
        text += &format!("-- {table}\n{rows}\n");
    }
    text
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn each_use_case_does_for_its_caller_what_the_table_allows(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.channel("one").await;
    let monitor = world.monitor("nightly").await;
    world.ping(&monitor, Fail).await;
    world.alive().await;
    let one = |question: &'static str| sqlx::query_scalar::<_, Uuid>(question).fetch_one(&world.pool);
    let rotation = world.rotation(settings(&[("Ann", &[channel])])).await.unwrap();
    let steps = [step(0, &[("rotation", rotation.0)])];
    let policy = json!({"name": "Default", "steps": steps});
    let policy = world.policy(policy).await.unwrap();
    let things = Things {
        monitor: monitor.id,
        beat: BeatId(one("SELECT id FROM beat").await.unwrap()),
        incident: IncidentId(one("SELECT id FROM incident").await.unwrap()),
        channel,
        rotation,
        policy,
        key: api_key::issue(&world.services, &world.access, "a key", Scope::Read)
            .await
            .unwrap()
            .0
            .id,
    };
    let before = rows(&world).await;

    let mut refusals = 0;
    for use_case in USE_CASES {
        for access in everyone(&world) {
            let Err(refusal) = access.may(use_case.action()) else {
                continue;
            };
            let refused = use_case.call(&world, &access, &things).await;
            assert!(
                matches!(refused, Err(ServiceError::Refused(seen)) if seen == refusal),
                "{use_case:?} for {access:?}: {refused:?}"
            );
            refusals += 1;
        }
    }
    assert_eq!(rows(&world).await, before, "a refused caller changes nothing");
    assert!(refusals > 50, "{refusals}");

    for use_case in USE_CASES {
        for access in everyone(&world) {
            if access.may(use_case.action()).is_ok() {
                let done = use_case.call(&world, &access, &Things::nowhere()).await;
                assert!(
                    matches!(done, Ok(()) | Err(ServiceError::NotFound(_))),
                    "{use_case:?} for {access:?}: {done:?}"
                );
            }
        }
    }
}
