//! The management API of Healthchecks: each endpoint with good and bad input, as bytes where the answer has no ids and times.

mod access;
mod checks;
mod fields;
mod history;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::Harness;

/// Answers of one request: its status, its headers, its text.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// A client of the API with a key. None: it sends no key.
pub struct Client<'a> {
    pub harness: &'a Harness,
    pub key: Option<String>,
    pub version: &'a str,
}

impl<'a> Client<'a> {
    pub fn new(harness: &'a Harness) -> Self {
        Self {
            harness,
            key: Some(harness.api_key.clone()),
            version: "v3",
        }
    }

    pub fn with_key(&self, key: Option<&str>) -> Self {
        Self {
            harness: self.harness,
            key: key.map(str::to_owned),
            version: self.version,
        }
    }

    pub fn of(&self, version: &'a str) -> Self {
        Self {
            harness: self.harness,
            key: self.key.clone(),
            version,
        }
    }

    pub async fn raw(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Reply {
        let url = match path.strip_prefix('/') {
            Some(_) => format!("{}{path}", self.harness.url),
            None => format!("{}/api/{}/{path}", self.harness.url, self.version),
        };
        let mut request = self.harness.client.request(method, url);
        if let Some(key) = &self.key {
            request = request.header("X-Api-Key", key);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Reply {
            status,
            headers,
            text: String::from_utf8_lossy(&answer.bytes().await.unwrap()).into_owned(),
        }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.raw(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw(Method::POST, path, Some(body.to_string().into_bytes()))
            .await
    }

    /// Creates a check.
    pub async fn check(&self, body: &Value) -> Value {
        let reply = self.post("checks/", body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()
    }
}

pub fn members(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The names of the members of the first object, in their order.
pub fn order(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\": ") {
        let name = rest[..at].rsplit('"').next().unwrap();
        names.push(name.to_owned());
        rest = &rest[at + 3..];
    }
    names
}

pub fn path_of(check: &Value) -> String {
    format!("checks/{}", check["uuid"].as_str().unwrap())
}

pub async fn ping(harness: &Harness, check: &Value, action: &str, body: &'static [u8]) {
    let url = check["ping_url"].as_str().unwrap();
    let tail = &url[url.find("/ping/").unwrap()..];
    let request = harness
        .client
        .post(format!("{}{tail}{action}", harness.url))
        .body(body);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

pub const ALWAYS: &[&str] = &[
    "name",
    "slug",
    "tags",
    "desc",
    "grace",
    "n_pings",
    "status",
    "started",
    "last_ping",
    "next_ping",
    "manual_resume",
    "methods",
    "subject",
    "subject_fail",
    "start_kw",
    "success_kw",
    "failure_kw",
    "filter_subject",
    "filter_body",
    "filter_http_body",
    "filter_default_fail",
    "badge_url",
];
pub const FOR_WRITERS: &[&str] = &[
    "uuid",
    "ping_url",
    "update_url",
    "pause_url",
    "resume_url",
    "channels",
];
