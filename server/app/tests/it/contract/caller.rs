//! A client that checks every answer by the contract, and remembers which statuses of which operations it has seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

use super::document::{Operation, contract};
use crate::harness::Harness;

/// A checked answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The JSON of the body, or null without a body.
    pub json: Value,
    pub bytes: Vec<u8>,
}

impl Answer {
    /// Returns the code of a problem.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }
}

/// Sends requests and checks them by the contract.
pub struct Caller<'a> {
    harness: &'a Harness,
    /// The key of calls that name no other key.
    pub key: String,
    seen: Mutex<BTreeMap<Operation, BTreeSet<u16>>>,
}

impl<'a> Caller<'a> {
    /// A caller with the harness's API key.
    pub fn new(harness: &'a Harness) -> Self {
        Self::with_key(harness, &harness.api_key)
    }

    /// A caller with another key.
    pub fn with_key(harness: &'a Harness, key: &str) -> Self {
        Self {
            harness,
            key: key.to_owned(),
            seen: Mutex::default(),
        }
    }

    fn client(&self) -> &Client {
        &self.harness.client
    }

    /// Makes a request with the caller's key.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client()
            .request(method, format!("{}{path}", self.harness.url))
            .bearer_auth(&self.key)
    }

    /// Sends a request without a check of its body. Checks the answer.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let operation = contract()
            .operation(&method, &path)
            .unwrap_or_else(|| panic!("the contract has no {method} {path}"));
        let answer = self
            .client()
            .execute(request)
            .await
            .unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap().to_vec();
        contract().check_answer(&operation, status, &headers, &bytes);
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(operation)
            .or_default()
            .insert(status.as_u16());
        Answer {
            status,
            headers,
            json: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            bytes,
        }
    }

    /// Sends a request without a body.
    pub async fn call(&self, method: Method, path: &str) -> Answer {
        self.send(self.request(method, path)).await
    }

    /// Sends a JSON body. If the server accepts the body, the contract must allow it.
    pub async fn json(&self, method: Method, path: &str, body: &Value) -> Answer {
        let answer = self.send(self.request(method.clone(), path).json(body)).await;
        if answer.status.is_success() {
            let operation = contract().operation(&method, path).unwrap();
            contract().check_request(&operation, body);
        }
        answer
    }

    /// Sends a GET that must succeed. Returns the JSON of the answer.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path).await;
        assert_eq!(answer.status, StatusCode::OK, "GET {path}: {}", answer.json);
        answer.json
    }

    /// Sends a POST of JSON that must succeed. Returns the JSON of the answer.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.json(Method::POST, path, body).await;
        assert!(answer.status.is_success(), "POST {path} {body}: {}", answer.json);
        answer.json
    }

    /// Reads a list page by page.
    pub async fn pages(&self, path: &str, limit: usize) -> Vec<Value> {
        let noun = path
            .split('?')
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .replace('-', "_");
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let page = self.get(&format!("{path}{join}limit={limit}{cursor}")).await;
            let found = page[&noun].as_array().unwrap();
            assert!(found.len() <= limit);
            rows.extend(found.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => {
                    assert_eq!(found.len(), limit, "a page before the last one is full");
                    cursor = format!("&cursor={next}");
                }
                None => return rows,
            }
        }
    }

    /// Returns the statuses of each operation that this caller has seen.
    pub fn seen(&self) -> BTreeMap<Operation, BTreeSet<u16>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns every row that a project's requests could have changed, without the columns that background loops change.
pub async fn dump(harness: &Harness) -> String {
    let mut text = String::new();
    for table in [
        "project",
        "api_key",
        "monitor",
        "monitor_channel",
        "channel",
        "rotation",
        "escalation_policy",
        "beat",
        "worker",
        "queue",
        "broker",
        "trace",
        "open_trace",
        "incident",
        "ping",
        "ping_body",
        "run",
        "delivery",
    ] {
        let query = format!(
            "SELECT coalesce(string_agg(row::text, E'\\n' ORDER BY row::text), '')
            FROM (
                SELECT to_jsonb(whole) - ARRAY['check_after', 'last_used_at', 'last_used_addr', 'next_attempt_at', 'attempt_count', 'lease', 'settled_at',
                    'remind_at', 'sync_id'] AS row
                FROM {table} AS whole
            ) AS rows"
        );
        let rows: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .fetch_one(&harness.pool)
            .await
            .unwrap();
        text += &format!("-- {table}\n{rows}\n");
    }
    text
}
