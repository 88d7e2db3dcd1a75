//! Deliveries by mail.

use deadbeat_domain::incident::command::Command;

use super::*;

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mail_arrives_with_text_and_html(pool: PgPool) {
    let world = World::new(pool).await;
    let inbox = Inbox::start().await;
    let channel = world.email().await;
    let repair = Repair::command(
        "See the queues.",
        Command::new("celery -A shop inspect active_queues"),
    );
    let opened = world
        .incident_with("Es kam keine Meldung für nightly-report <b>.", vec![repair])
        .await;
    let resolved = Incident {
        resolved_at: Some(world.clock.now() + TimeDelta::seconds(300)),
        ..opened.clone()
    };
    let id = world.alert_channel(channel, &opened, Phase::Opened).await;
    world.alert_channel(channel, &resolved, Phase::Resolved).await;
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let [opened, resolved] = inbox.mails().try_into().unwrap();
    assert_eq!(
        (opened.from.as_str(), &opened.to),
        ("deadbeat@example.org", &vec!["ops@example.org".to_owned()])
    );
    assert_eq!(
        opened.header("Subject").as_deref(),
        Some("[Deadbeat] DOWN: nightly-report (MISSED)")
    );
    assert_eq!(
        resolved.header("Subject").as_deref(),
        Some("[Deadbeat] RESOLVED: nightly-report after 5 min")
    );
    assert_eq!(opened.header("Message-ID"), Some(format!("<{id}@example.org>")));
    assert_eq!(opened.header("References"), resolved.header("References"));
    assert_eq!(opened.header("Auto-Submitted").as_deref(), Some("auto-generated"));
    let (text, html) = (
        opened.part("text/plain").unwrap(),
        opened.part("text/html").unwrap(),
    );
    assert!(
        text.contains("Es kam keine Meldung für nightly-report <b>.\n"),
        "{text}"
    );
    assert!(
        text.contains("Down since: 2026-01-15 12:00:00 UTC\n")
            && text.contains("celery -A shop inspect active_queues"),
        "{text}"
    );
    assert!(
        html.contains("<p>Es kam keine Meldung für nightly-report &lt;b&gt;.</p>"),
        "{html}"
    );
    let attempt = world.attempts(id).await.remove(0);
    assert_eq!(
        (attempt.outcome.as_str(), attempt.response_code),
        ("sent", Some(250))
    );
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_mailbox_that_is_busy_is_tried_again_and_one_that_is_gone_is_not(pool: PgPool) {
    let world = World::new(pool).await;
    let inbox = Inbox::start().await;
    inbox
        .refuse(Step::Recipient, "450 4.2.0 greylisted")
        .refuse(Step::Sender, "550 5.7.1 relaying denied");
    inbox.refuse(Step::Recipient, "550 5.1.1 no such user");
    let other = Receiver::start().await;
    let channel = world.email().await;
    world.webhook(other.url("/hook")).await;
    let id = world.test(channel).await;
    let delivery = world.delivery_with(mailing(&inbox), DeliverySettings::default());

    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    world.clock.advance(TimeDelta::seconds(5));
    assert_eq!(delivery.deliver_once().await.unwrap(), RETRIED);
    assert_eq!(world.disabled(channel).await, None);
    world.clock.advance(TimeDelta::seconds(10));
    assert_eq!(delivery.deliver_once().await.unwrap(), DEAD);
    assert_eq!(delivery.deliver_once().await.unwrap(), sent(1));

    let codes: Vec<_> = world
        .attempts(id)
        .await
        .iter()
        .map(|attempt| attempt.response_code.unwrap())
        .collect();
    assert_eq!(codes, [450, 550, 550]);
    let reason = world.disabled(channel).await.unwrap();
    assert!(reason.contains("5.1.1 no such user"), "{reason}");
    assert!(inbox.mails().is_empty());
    assert!(other.requests()[0].text().contains("no such user"));
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn mails_wait_for_an_operator_who_has_no_server_yet(pool: PgPool) {
    let world = World::new(pool).await;
    let channel = world.email().await;
    let id = world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), RETRIED);
    let inbox = Inbox::start().await;
    world.clock.advance(TimeDelta::seconds(5));
    let progress = world
        .delivery_with(mailing(&inbox), DeliverySettings::default())
        .deliver_once()
        .await
        .unwrap();

    assert_eq!(progress, sent(1));
    assert_eq!(inbox.mails().len(), 1);
    assert_eq!(world.disabled(channel).await, None);
    let detail = world.attempts(id).await.remove(0).detail.unwrap();
    assert_eq!(detail, "no SMTP server is configured: set DEADBEAT_SMTP_URL");
}

#[sqlx::test(migrator = "deadbeat_store::MIGRATOR")]
async fn a_new_channel_can_sign(pool: PgPool) {
    let world = World::new(pool).await;
    let receiver = Receiver::start().await;
    let channel = world.webhook(receiver.url("/hook")).await;
    let secret = webhook::signing_secret();
    sqlx::query("UPDATE channel SET signing_secret = $2 WHERE id = $1")
        .bind(channel.0)
        .bind(&secret)
        .execute(&world.pool)
        .await
        .unwrap();
    world.test(channel).await;

    assert_eq!(world.delivery().deliver_once().await.unwrap(), sent(1));

    let before: DateTime<Utc> = world.clock.now();
    assert_eq!(
        receiver.requests()[0].header("webhook-timestamp"),
        Some(before.timestamp().to_string().as_str())
    );
}
