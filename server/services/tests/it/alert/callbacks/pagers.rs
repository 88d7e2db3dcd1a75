//! Webhooks of PagerDuty, Jira Service Management and Opsgenie.

use super::*;

/// An event as PagerDuty sends it: the example of <https://developer.pagerduty.com/docs/webhooks-overview>.
pub(super) fn event(kind: &str, key: &Value, agent: &Value) -> String {
    json!({"event": {
        "id": "5ac64822-4adc-4fda-ade0-410becf0de4f", "event_type": kind, "resource_type": "incident",
        "occurred_at": "2020-10-02T18:45:22.169Z", "agent": agent, "client": {"name": "PagerDuty"},
        "data": {
            "id": "PGR0VU2", "type": "incident", "self": "https://api.pagerduty.com/incidents/PGR0VU2", "number": 2,
            "status": "acknowledged", "incident_key": key, "title": "DOWN: backup (FAILED)", "urgency": "high",
            "assignees": [{"id": "PTUXL6G", "summary": "User 123", "type": "user_reference"}], "resolve_reason": null,
        },
    }})
    .to_string()
}

pub(super) fn engineer() -> Value {
    json!({"html_url": "https://acme.pagerduty.com/users/PLH1HKV", "id": "PLH1HKV", "summary": "Tenex Engineer", "type": "user_reference"})
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_acknowledgement_in_pagerduty_acknowledges_the_incident_of_its_key(pool: PgPool) {
    let world = World::new(pool).await;
    let pager = world.pagerduty().await;
    let (one, two) = (world.fault("one").await, world.fault("two").await);
    let send = async |body: &str| {
        // While a secret is being replaced, PagerDuty sends a signature for each.
        let signatures = format!("v1={},v2=x,v1={}", "0".repeat(64), hex_mac(PAGERDUTY, body));
        pagerduty::happened(&world.services, world.place(pager), &signatures, body.as_bytes()).await
    };

    for kind in [
        "incident.triggered",
        "incident.resolved",
        "incident.unacknowledged",
        "pagey.ping",
    ] {
        send(&event(kind, &json!(one), &engineer())).await.unwrap();
    }
    assert_eq!(world.acknowledged_by(one).await, None);
    for key in [
        json!("d3640fbd41094207a1c11e58e46b1662"),
        json!("no id"),
        Value::Null,
    ] {
        send(&event("incident.acknowledged", &key, &engineer()))
            .await
            .unwrap();
    }
    for _ in 0..2 {
        send(&event("incident.acknowledged", &json!(one), &engineer()))
            .await
            .unwrap();
    }
    send(&event("incident.acknowledged", &json!(two), &Value::Null))
        .await
        .unwrap();

    assert_eq!(
        world.acknowledged_by(one).await.as_deref(),
        Some("Tenex Engineer in PagerDuty")
    );
    assert_eq!(
        world.acknowledged_by(two).await.as_deref(),
        Some("somebody in PagerDuty")
    );
    let alerts = world.alerts().await;
    let alerted = alerts.iter().filter(|alert| *alert == "acknowledged");
    assert_eq!(alerted.count(), 2);
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn pagerduty_is_believed_by_its_signature_and_in_its_project(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let (pager, hook) = (world.pagerduty().await, world.channel("hook").await);
    let without = world
        .of_kind(
            "pagerduty",
            json!({"routing_key": "e93facc04764012d7bfb002500d5d1a6"}),
        )
        .await;
    let (incident, theirs) = (world.fault("backup").await, other.fault("backup").await);
    let body = event("incident.acknowledged", &json!(incident), &engineer());
    let good = format!("v1={}", hex_mac(PAGERDUTY, &body));
    for (place, signatures) in [
        (world.place(pager), String::new()),
        (world.place(pager), hex_mac(PAGERDUTY, &body)),
        (world.place(pager), format!("v1={}", hex_mac("another", &body))),
        (world.place(pager), format!("{}{good}", "v1=0,".repeat(1_000))),
        (world.place(hook), good.clone()),
        (world.place(without), good.clone()),
        (world.place(without), format!("v1={}", hex_mac("", &body))),
        (world.place(ChannelId::generate()), good.clone()),
        (other.place(pager), good.clone()),
    ] {
        let refused = pagerduty::happened(&world.services, place, &signatures, body.as_bytes()).await;
        assert!(is_unproved(&refused), "{refused:?}");
    }
    let changed = body.replace("Tenex", "Eve's");
    let refused = pagerduty::happened(&world.services, world.place(pager), &good, changed.as_bytes()).await;
    assert!(is_unproved(&refused));
    assert_eq!(world.acknowledged_by(incident).await, None);

    // The signature is right, but the incident is another project's. The answer is the same as for an unknown incident.
    for key in [json!(theirs), json!(IncidentId::generate())] {
        let body = event("incident.acknowledged", &key, &engineer());
        let good = format!("v1={}", hex_mac(PAGERDUTY, &body));
        pagerduty::happened(&world.services, world.place(pager), &good, body.as_bytes())
            .await
            .unwrap();
    }
    assert_eq!(world.acknowledged_by(theirs).await, None);
    let odd = "not json";
    let signed = format!("v1={}", hex_mac(PAGERDUTY, odd));
    let refused = pagerduty::happened(&world.services, world.place(pager), &signed, odd.as_bytes()).await;
    assert!(matches!(refused, Err(CallbackError::Unreadable)), "{refused:?}");
}

/// An action as Opsgenie and Jira Service Management send it: the example of the page named in `incident/callback/jira_service_management.rs`.
fn action(kind: &str, alias: &Value) -> String {
    json!({
        "source": {"name": "", "type": "web"},
        "alert": {
            "updatedAt": 1_420_452_224_764_002_246_i64, "tags": ["tag1", "tag2"], "message": "test alert", "username": "fili@ifountain.com",
            "alertId": "052652ac-5d1c-464a-812a-7dd18bbfba8c", "source": "fili@ifountain.com", "alias": alias, "tinyId": "23",
            "createdAt": 1_420_452_191_104_i64, "userId": "daed1180-0ce8-438b-8f8e-57e1a5920a2d", "entity": "",
        },
        "action": kind, "integrationId": "37c8f316-17c6-49d7-899b-9c7e540c048d", "integrationName": "Integration1",
    })
    .to_string()
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn an_acknowledgement_in_jira_service_management_or_opsgenie_acknowledges_the_incident_of_its_alias(
    pool: PgPool,
) {
    let world = World::new(pool).await;
    for (service, words) in [
        (
            "jira_service_management",
            "fili@ifountain.com in Jira Service Management",
        ),
        ("opsgenie_eu", "fili@ifountain.com in Opsgenie"),
    ] {
        let channel = world.jsm(service).await;
        let incident = world.fault(service).await;
        let send = async |body: &str| {
            jira_service_management::acted(&world.services, world.place(channel), JSM, body.as_bytes()).await
        };
        for kind in ["Create", "UnAcknowledge", "Close", "AddNote", "acknowledge"] {
            send(&action(kind, &json!(incident))).await.unwrap();
        }
        for alias in [json!("aliastest"), Value::Null, json!(IncidentId::generate())] {
            send(&action("Acknowledge", &alias)).await.unwrap();
        }
        assert_eq!(world.acknowledged_by(incident).await, None);

        for _ in 0..2 {
            send(&action("Acknowledge", &json!(incident))).await.unwrap();
        }

        assert_eq!(world.acknowledged_by(incident).await.as_deref(), Some(words));
    }
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn jira_service_management_is_believed_by_its_token_and_in_its_project(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let (pager, pagerduty) = (world.jsm("opsgenie").await, world.pagerduty().await);
    let (incident, theirs) = (world.fault("backup").await, other.fault("backup").await);
    let body = action("Acknowledge", &json!(incident));
    for (place, token) in [
        (world.place(pager), ""),
        (world.place(pager), "jsm-webhook-token-012"),
        (world.place(pager), "eb243592-faa2-4ba2-a551-1afdf565c889"),
        (world.place(pagerduty), JSM),
        (world.place(ChannelId::generate()), JSM),
        (other.place(pager), JSM),
    ] {
        let refused = jira_service_management::acted(&world.services, place, token, body.as_bytes()).await;
        assert!(is_unproved(&refused), "{refused:?}");
    }
    let body = action("Acknowledge", &json!(theirs));
    jira_service_management::acted(&world.services, world.place(pager), JSM, body.as_bytes())
        .await
        .unwrap();

    assert_eq!(world.acknowledged_by(incident).await, None);
    assert_eq!(world.acknowledged_by(theirs).await, None);
}
