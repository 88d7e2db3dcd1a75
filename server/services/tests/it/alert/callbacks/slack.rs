//! Buttons in Slack.

use super::*;

/// A press as Slack sends it, in the form of the page named in `incident/callback/slack.rs`.
fn press(value: &str, user: &str) -> String {
    let payload = json!({
        "type": "block_actions",
        "user": {"id": "UA8RXUSPL", "username": user, "name": user, "team_id": "T9TK3CUKW"},
        "api_app_id": "AABA1ABCD",
        "token": "9s8d9as89d8as9d8as989",
        "trigger_id": "12321423423.333649436676.d8c1bb837935619ccad0f624c448ffb3",
        "team": {"id": "T9TK3CUKW", "domain": "example"},
        "channel": {"id": "CBR2V3XEX", "name": "ops"},
        "response_url": "https://hooks.slack.com/actions/AABA1ABCD/1232321423432/D09sSasdasdAS9091209",
        "actions": [{
            "action_id": "deadbeat_acknowledge", "block_id": "=qXel", "type": "button",
            "text": {"type": "plain_text", "text": "Acknowledge"}, "value": value, "action_ts": "1548426417.840180",
        }],
    });
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &payload.to_string())
        .finish()
}

async fn pressed(services: &Services, secret: &str, at: i64, body: &str) -> Result<(), CallbackError> {
    let (timestamp, mac) = (at.to_string(), hex_mac(secret, &format!("v0:{at}:{body}")));
    let headers = Headers {
        timestamp: &timestamp,
        signature: &format!("v0={mac}"),
    };
    from_slack::pressed(services, headers, body.as_bytes()).await
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_button_in_slack_acknowledges_and_says_who_pressed_it(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    world.slack(&receiver).await;
    let incident = world.fault("backup").await;
    let body = press(&world.button_in_slack(&receiver).await, "ann");
    let at = world.now().timestamp();

    for _ in 0..2 {
        pressed(&world.services, SLACK, at, &body).await.unwrap();
    }

    assert_eq!(
        world.acknowledged_by(incident).await.as_deref(),
        Some("ann in Slack")
    );
    assert_eq!(world.alerts().await, ["opened", "acknowledged"], "one alert");
    let alerted: String = sqlx::query_scalar(
        "SELECT payload #>> '{incident,acknowledged_by}' FROM delivery WHERE alert = 'acknowledged'",
    )
    .fetch_one(&world.pool)
    .await
    .unwrap();
    assert_eq!(alerted, "ann in Slack");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_press_that_is_sent_again_after_five_minutes_is_refused(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    world.slack(&receiver).await;
    let incident = world.fault("backup").await;
    let body = press(&world.button_in_slack(&receiver).await, "ann");
    let at = world.now().timestamp();

    world.advance(301);
    assert!(is_unproved(&pressed(&world.services, SLACK, at, &body).await));
    assert!(
        is_unproved(&pressed(&world.services, SLACK, at + 602, &body).await),
        "from the future"
    );
    assert_eq!(world.acknowledged_by(incident).await, None);
    pressed(&world.services, SLACK, at + 1, &body).await.unwrap();
    assert!(world.acknowledged_by(incident).await.is_some());
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_press_is_refused_alike_whatever_does_not_prove_it(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let receiver = Receiver::start().await;
    let ops = world.slack(&receiver).await;
    let incident = world.fault("backup").await;
    let value = world.button_in_slack(&receiver).await;
    let at = world.now().timestamp();
    let theirs = other.slack(&receiver).await;
    let without = world
        .of_kind("slack", json!({"webhook_url": receiver.url("/services/x")}))
        .await;
    let hook = world.channel("hook").await;
    let whole = |project: ProjectId, button: String| format!("{project}.{button}");
    let strange = Keyring::load(&"09".repeat(32), None).unwrap();
    let forged = Button {
        project: world.project,
        channel: ops,
        incident,
    };

    for (body, secret) in [
        (press(&value, "ann"), "another-secret-0123456789abcdef"),
        // The other project's app signs the press, which names our project or our incident.
        (
            press(&whole(other.project, world.button(theirs, incident)), "eve"),
            SLACK,
        ),
        (
            press(&whole(world.project, other.button(theirs, incident)), "eve"),
            SLACK,
        ),
        (
            press(&whole(world.project, forged.sign(&strange).unwrap()), "eve"),
            SLACK,
        ),
        (
            press(&whole(world.project, world.button(without, incident)), "eve"),
            SLACK,
        ),
        (
            press(&whole(world.project, world.button(hook, incident)), "eve"),
            SLACK,
        ),
        (
            press(
                &whole(world.project, world.button(ChannelId::generate(), incident)),
                "eve",
            ),
            SLACK,
        ),
        (press("", "eve"), SLACK),
        (press(&"x".repeat(3_000), "eve"), SLACK),
        ("payload=%7B".to_owned(), SLACK),
        ("payload=[]".to_owned(), SLACK),
        ("nothing".to_owned(), SLACK),
        (String::new(), SLACK),
    ] {
        let refused = pressed(&world.services, secret, at, &body).await;
        assert!(is_unproved(&refused), "{refused:?}: {body}");
    }
    let body = press(&value, "ann");
    for signature in [
        "",
        "v0=",
        "v0=0",
        &format!("v1={}", hex_mac(SLACK, &format!("v0:{at}:{body}"))),
    ] {
        let timestamp = at.to_string();
        let headers = Headers {
            timestamp: &timestamp,
            signature,
        };
        let refused = from_slack::pressed(&world.services, headers, body.as_bytes()).await;
        assert!(is_unproved(&refused), "{signature}");
    }
    assert_eq!(world.acknowledged_by(incident).await, None);
    channel::delete(&world.services, &world.access, ops)
        .await
        .unwrap();
    assert!(
        is_unproved(&pressed(&world.services, SLACK, at, &body).await),
        "the channel is gone"
    );
}

/// An app of Slack has one address, so it may serve channels of several projects. Each button acts in its own project.
#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn one_app_of_slack_serves_several_projects(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let receiver = Receiver::start().await;
    let (ours, theirs) = (world.slack(&receiver).await, other.slack(&receiver).await);
    let (one, two) = (world.fault("backup").await, other.fault("backup").await);
    let at = world.now().timestamp();

    let body = press(&format!("{}.{}", other.project, other.button(theirs, two)), "bob");
    pressed(&world.services, SLACK, at, &body).await.unwrap();
    // The button's signature is right, but its incident is another project's: Deadbeat finds nothing.
    let body = press(&format!("{}.{}", world.project, world.button(ours, two)), "eve");
    pressed(&world.services, SLACK, at, &body).await.unwrap();

    assert_eq!(world.acknowledged_by(one).await, None);
    assert_eq!(world.acknowledged_by(two).await.as_deref(), Some("bob in Slack"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn two_who_press_at_once_are_one_acknowledgement(pool: PgPool) {
    let world = World::new(pool).await;
    let (another, _stop) = world.another_process();
    let receiver = Receiver::start().await;
    let ops = world.slack(&receiver).await;
    let incident = world.fault("backup").await;
    let value = format!("{}.{}", world.project, world.button(ops, incident));
    let at = world.now().timestamp();

    let presses = (0..8).map(|n| {
        let (services, body) = (
            if n % 2 == 0 { &world.services } else { &another },
            press(&value, &format!("user{n}")),
        );
        async move { pressed(services, SLACK, at, &body).await }
    });
    for done in join_all(presses).await {
        done.unwrap();
    }

    assert!(world.acknowledged_by(incident).await.unwrap().starts_with("user"));
    assert_eq!(world.alerts().await, ["opened", "acknowledged"]);
}
