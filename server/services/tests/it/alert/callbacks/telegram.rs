//! Buttons in Telegram.

use super::*;

/// A press as Telegram sends it, in the form of `Update` and `CallbackQuery`.
fn update(data: &str, from: &Value) -> Vec<u8> {
    let update = json!({"update_id": 10_000, "callback_query": {
        "id": "4382bfdwdsb323b2d9", "from": from, "chat_instance": "1", "data": data,
        "message": {"message_id": 42, "date": 0, "chat": {"id": -1_001_234_567_890_i64, "type": "supergroup"}},
    }});
    update.to_string().into_bytes()
}

fn ann() -> Value {
    json!({"id": 1_111_111, "is_bot": false, "first_name": "Ann", "last_name": "Example", "username": "ann"})
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_button_in_telegram_acknowledges_and_answers_whoever_pressed_it(pool: PgPool) {
    let world = World::new(pool).await;
    let ops = world.telegram().await;
    let (incident, over) = (world.fault("backup").await, world.fault("report").await);
    let monitors = sqlx::query_scalar("SELECT id FROM monitor WHERE slug = 'report'");
    let report: Uuid = monitors.fetch_one(&world.pool).await.unwrap();
    let report = world.read(deadbeat_domain::ids::MonitorId(report)).await;
    world.ping(&report, Success).await;
    let press = async |incident, from: &Value| {
        let body = update(&world.button(ops, incident), from);
        let said = from_telegram::updated(&world.services, world.place(ops), TELEGRAM, &body).await;
        let Said { query, text } = said.unwrap().unwrap();
        assert_eq!(query, "4382bfdwdsb323b2d9");
        text
    };

    let text = press(incident, &ann()).await;
    let second = press(incident, &json!({"id": 2, "is_bot": false, "first_name": "Bob"})).await;

    assert_eq!(text, "Acknowledged by Ann Example (@ann) in Telegram.");
    assert_eq!(second, text, "a second press changes nothing");
    assert_eq!(
        world.acknowledged_by(incident).await.as_deref(),
        Some("Ann Example (@ann) in Telegram")
    );
    assert_eq!(press(over, &ann()).await, "It is over already.");
    assert_eq!(
        press(IncidentId::generate(), &ann()).await,
        "There is nothing to acknowledge."
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn telegram_is_believed_by_its_token_and_the_button_by_its_signature(pool: PgPool) {
    let world = World::new(pool).await;
    let other = World::new(world.pool.clone()).await;
    let (ops, night, theirs) = (
        world.telegram().await,
        world.telegram().await,
        other.telegram().await,
    );
    let hook = world.channel("hook").await;
    let (incident, their_incident) = (world.fault("backup").await, other.fault("backup").await);
    let body = update(&world.button(ops, incident), &ann());
    for (place, token) in [
        (world.place(ops), ""),
        (world.place(ops), "telegram-secret-token_012"),
        (world.place(hook), TELEGRAM),
        (world.place(ChannelId::generate()), TELEGRAM),
        // The channel belongs to another project.
        (world.place(theirs), TELEGRAM),
        (other.place(ops), TELEGRAM),
    ] {
        let refused = from_telegram::updated(&world.services, place, token, &body).await;
        assert!(is_unproved(&refused), "{refused:?}");
    }
    // A member of the chat can send any data with a modified client.
    for data in [
        "",
        "acknowledge everything",
        &"A".repeat(64),
        &other.button(theirs, their_incident),
        &other.button(ops, incident),
        &world.button(hook, incident),
        &world.button(ChannelId::generate(), incident),
    ] {
        let body = update(data, &ann());
        let said = from_telegram::updated(&world.services, world.place(ops), TELEGRAM, &body).await;
        assert_eq!(
            said.unwrap().unwrap().text,
            "There is nothing to acknowledge.",
            "{data}"
        );
    }
    assert_eq!(world.acknowledged_by(incident).await, None);
    assert_eq!(world.acknowledged_by(their_incident).await, None);
    for (body, is_readable) in [
        (
            json!({"update_id": 1, "message": {"text": "hello"}}).to_string(),
            true,
        ),
        ("{".to_owned(), false),
        ("[]".to_owned(), false),
    ] {
        let said = from_telegram::updated(&world.services, world.place(ops), TELEGRAM, body.as_bytes()).await;
        assert_eq!(matches!(said, Ok(None)), is_readable, "{body}: {said:?}");
        assert_eq!(
            matches!(said, Err(CallbackError::Unreadable)),
            !is_readable,
            "{body}"
        );
    }

    // One bot has one webhook, and sends messages to two chats of the project.
    let body = update(&world.button(night, incident), &ann());
    from_telegram::updated(&world.services, world.place(ops), TELEGRAM, &body)
        .await
        .unwrap();
    assert!(world.acknowledged_by(incident).await.is_some());
}
