//! The part of the story about the change feed.

use reqwest::Method;
use serde_json::{Value, json};

use super::expect;
use crate::contract::Caller;

/// Reads the whole feed, page by page.
pub(super) async fn changes(caller: &Caller<'_>) {
    let newest = caller.get("/api/v1/changes").await;
    assert_eq!(newest["changes"], json!([]));
    let (mut after, mut all) = (json!(0), Vec::new());
    loop {
        let page = caller
            .get(&format!("/api/v1/changes?after={after}&limit=25"))
            .await;
        assert_eq!(page["must_reload"], false);
        let rows = page["changes"].as_array().unwrap().clone();
        if rows.is_empty() {
            break;
        }
        after = page["next_after"].clone();
        all.extend(rows);
    }
    assert!(after.as_i64() >= newest["next_after"].as_i64());
    let sequences: Vec<i64> = all.iter().map(|one| one["sequence"].as_i64().unwrap()).collect();
    let expected: Vec<i64> = (1..=after.as_i64().unwrap()).collect();
    assert_eq!(sequences, expected);
    for (kind, what) in [
        ("monitor", "created"),
        ("monitor", "changed"),
        ("monitor", "status"),
        ("channel", "created"),
        ("channel", "deleted"),
        ("incident", "opened"),
        ("incident", "acknowledged"),
        ("api_key", "created"),
        ("api_key", "deleted"),
        ("project", "changed"),
        ("beat", "deleted"),
        ("worker", "status"),
    ] {
        let is_it = |one: &Value| one["subject"]["kind"] == kind && one["what"] == what;
        assert!(all.iter().any(is_it), "{kind} {what}");
    }
    let beyond = format!("/api/v1/changes?after={}", i64::MAX);
    assert_eq!(caller.get(&beyond).await["must_reload"], true);
    expect(caller, Method::GET, "/api/v1/changes?after=-1", &json!(null), 400).await;
}
