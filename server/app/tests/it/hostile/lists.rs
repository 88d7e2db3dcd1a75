//! Limits on lists that a tenant can make long.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::Caller;
use crate::harness;

/// A worker with 200 queues, whose names have 244 characters, takes 49 kB of an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_workers_is_bounded_in_bytes_and_loses_nobody() {
    let harness = harness::start().await;
    let caller = Caller::with_key(&harness, &harness.read_key);
    sqlx::query(
        "INSERT INTO worker (id, project_id, app, name, status, period_seconds, grace_seconds, snapshot, queues, progress_at, created_at,
            last_seen_at)
        SELECT gen_random_uuid(), project.id, 'shop', 'w' || n, 'up', 15, 60, '{}',
            (SELECT array_agg(rpad(m::text, 244, 'q')) FROM generate_series(1, 200) m), now(), now(), now()
        FROM project, generate_series(1, 60) n",
    )
    .execute(&harness.pool)
    .await
    .unwrap();

    let mut names = Vec::new();
    let mut path = "/api/v1/workers?limit=500".to_owned();
    loop {
        let answer = caller.call(Method::GET, &path).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(answer.bytes.len() < 1_100_000, "{} bytes", answer.bytes.len());
        let page = answer.json["workers"].as_array().unwrap();
        assert!(!page.is_empty());
        names.extend(
            page.iter()
                .map(|worker| worker["name"].as_str().unwrap().to_owned()),
        );
        match answer.json["next_cursor"].as_str() {
            Some(cursor) => path = format!("/api/v1/workers?limit=500&cursor={cursor}"),
            None => break,
        }
    }

    names.sort();
    names.dedup();
    assert_eq!(names.len(), 60);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_queues_brokers_and_beats_are_paged_newest_first() {
    let harness = harness::start().await;
    let caller = Caller::new(&harness);
    let ids: Vec<Uuid> = (0..7).map(|_| Uuid::now_v7()).collect();
    for (n, id) in ids.iter().enumerate() {
        for insert in [
            "INSERT INTO worker (id, project_id, app, name, status, period_seconds, grace_seconds, snapshot, queues, progress_at, created_at)
            SELECT $1, id, $2, $2, 'up', 15, 60, '{}', '{}', now(), now() FROM project",
            "INSERT INTO queue (id, project_id, app, name, status, depth, seen_at, created_at) SELECT $1, id, $2, $2, 'up', 0, now(), now() FROM project",
            "INSERT INTO broker (id, project_id, app, status, created_at) SELECT $1, id, $2, 'up', now() FROM project",
            "INSERT INTO beat (id, project_id, name, status, period_seconds, grace_seconds, created_at) SELECT $1, id, $2, 'up', 15, 60, now() FROM project",
        ] {
            // The names sort in the opposite order of the ids.
            sqlx::query(insert)
                .bind(id)
                .bind(format!("name-{}", 9 - n))
                .execute(&harness.pool)
                .await
                .unwrap();
        }
    }
    let newest_first: Vec<Value> = ids.iter().rev().map(|id| json!(id)).collect();

    for list in ["workers", "queues", "brokers", "beats"] {
        for limit in [1, 3, 7, 500] {
            let rows = caller.pages(&format!("/api/v1/{list}"), limit).await;
            let seen: Vec<Value> = rows.iter().map(|row| row["id"].clone()).collect();
            assert_eq!(seen, newest_first, "{list} by {limit}");
        }
    }
    harness.stop().await;
}
