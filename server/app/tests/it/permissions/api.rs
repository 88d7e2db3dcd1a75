//! Every request of the API and every ping URL, tried with each key.

use deadbeat_domain::ids::ProjectId;
use deadbeat_domain::people::access::{Access, Actor};
use deadbeat_domain::people::key::Scope;
use deadbeat_domain::people::permission::Action;
use deadbeat_services::people::{api_key, project};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Request, requests};
use crate::contract::document::contract;
use crate::contract::dump;
use crate::contract::things::Things;
use crate::harness::{self, Harness};

/// The owner of the key that comes with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Nobody,
    /// A key of no project, or a revoked key.
    Invalid,
    Own(Scope),
    Other(Scope),
}

impl Whose {
    /// True if the key may do this to the project's own things.
    fn may(self, action: Action) -> bool {
        matches!(self, Self::Own(scope) if action.is_of_scope(scope))
    }
}

/// A made-up key in the right form.
const MADE_UP: &str = "dbp_00000000000000000000000000000000000000000000";

struct Answer {
    status: StatusCode,
    bytes: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn code(&self) -> String {
        let json: Value = serde_json::from_slice(&self.bytes).unwrap_or_default();
        json["code"].as_str().unwrap_or_default().to_owned()
    }
}

struct Walk {
    harness: Harness,
    things: Things,
    callers: Vec<(Whose, String)>,
}

impl Walk {
    async fn begin() -> Self {
        let (harness, _) = harness::start_at("2026-03-02T01:00:00Z").await;
        let things = Things::make(&harness).await;
        let services = harness.app.services();
        let other = project::create(services, "Other", None).await.unwrap();
        let own =
            ProjectId(Uuid::try_parse(harness.get("/api/v1/project").await["id"].as_str().unwrap()).unwrap());
        let operator = Access::new(own, Actor::Operator);
        let mut callers = vec![
            (Whose::Nobody, String::new()),
            (Whose::Invalid, format!("{}x", harness.api_key)),
        ];
        for scope in Scope::ALL {
            let (key, secret) = api_key::issue(services, &operator, "to be revoked", scope)
                .await
                .unwrap();
            api_key::revoke(services, &operator, key.id).await.unwrap();
            callers.push((Whose::Invalid, secret));
        }
        for (whose, project) in [
            (Whose::Own as fn(Scope) -> Whose, own),
            (Whose::Other, other.project.id),
        ] {
            let operator = Access::new(project, Actor::Operator);
            for scope in Scope::ALL {
                let issued = api_key::issue(services, &operator, "walk", scope).await.unwrap();
                callers.push((whose(scope), issued.1));
            }
        }
        Self {
            harness,
            things,
            callers,
        }
    }

    /// Sends a request about the project's own things. A body, if the request takes one, is never valid enough to change something.
    async fn send(&self, request: &Request, key: &str) -> Answer {
        let is_upsert = request.method() == Method::PUT && request.path().starts_with("/api/");
        let path = if is_upsert {
            request.path().replace("{id}", "a-slug")
        } else if request.is_ping_url() {
            let key = if key.is_empty() { MADE_UP } else { key };
            let id = self.things.monitor["ping_url"].as_str().unwrap();
            request
                .path()
                .replace("{ping_id}", id.rsplit('/').next().unwrap())
                .replace("{address}", key)
                .replace("{ping_key}", key)
                .replace("{what}", "job")
                .replace("{slug}", "job")
                .replace("{length}", "1s")
                .replace("{action}", "log")
        } else {
            self.things.path(request.path())
        };
        let mut sent = self
            .harness
            .client
            .request(request.method(), format!("{}{path}", self.harness.url));
        if !key.is_empty() && !request.is_ping_url() {
            sent = sent.bearer_auth(key);
        }
        if contract().wants_json(&request.operation) {
            sent = sent.json(&json!({"name": ""}));
        }
        let answer = sent.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        let bytes = answer.bytes().await.unwrap().to_vec();
        contract().check_answer(&request.operation, status, &headers, &bytes);
        Answer { status, bytes }
    }

    /// Returns the requests that need no session: the API, health and metrics, and ping URLs.
    fn requests() -> Vec<Request> {
        let operations = contract().operations();
        requests()
            .into_iter()
            .filter(|one| operations.contains(&one.operation))
            .collect()
    }
}

/// True if the request, with a ping key of another project, is about that other project only: its address contains only the key.
fn names_own_project(request: &Request, whose: Whose) -> bool {
    let path = request.path();
    matches!(whose, Whose::Other(Scope::Ping)) && path.contains("{ping_key}") && !path.contains("{slug}")
}

/// Returns the answer to a key that may not do this to the project's own things.
fn expected(request: &Request, action: Action, whose: Whose) -> Option<(u16, &'static str)> {
    if request.is_ping_url() {
        // A stranger learns nothing about keys: every fault is answered with 404.
        return Some((404, ""));
    }
    let of_id = request.path().contains("{id}") && request.method() != Method::PUT;
    match whose {
        Whose::Nobody => Some((401, "missing_key")),
        Whose::Invalid => Some((401, "unknown_key")),
        Whose::Own(scope) | Whose::Other(scope) if !action.is_of_scope(scope) => Some((403, "key_scope")),
        Whose::Other(_) if of_id => Some((404, "not_found")),
        // The answer is about the key's own project.
        Whose::Own(_) | Whose::Other(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_answered_to_each_key_as_the_table_says() {
    let walk = Walk::begin().await;
    let before = dump(&walk.harness).await;
    let ids: Vec<String> = [
        "beats",
        "monitors",
        "channels",
        "incidents",
        "deliveries",
        "api-keys",
        "runs",
        "snoozes",
        "maintenance-windows",
        "rotations",
        "escalation-policies",
        "invitations",
    ]
    .map(|noun| walk.things.id(noun).to_owned())
    .into();
    let ping_url = walk.things.monitor["ping_url"].as_str().unwrap();

    // First come all requests that must change nothing.
    let mut walked = 0;
    for request in Walk::requests() {
        let operation = &request.operation;
        for (whose, key) in &walk.callers {
            let Some(action) = request.action else { continue };
            if whose.may(action) || names_own_project(&request, *whose) {
                continue;
            }
            let answer = walk.send(&request, key).await;
            let about = format!("{operation} with the key of {whose:?}: {}", answer.text());
            if let Some((status, code)) = expected(&request, action, *whose) {
                assert_eq!(answer.status.as_u16(), status, "{about}");
                assert_eq!(answer.code(), code, "{about}");
            } else {
                assert!(![401, 403, 404].contains(&answer.status.as_u16()), "{about}");
            }
            for own in ids.iter().map(String::as_str).chain([ping_url, "\"Job\""]) {
                assert!(!answer.text().contains(own), "{own} is shown in {about}");
            }
            walked += 1;
        }
    }
    assert!(walked > 400, "{walked}");
    assert_eq!(
        dump(&walk.harness).await,
        before,
        "a refused request changes nothing"
    );

    // Then come the allowed requests, and deletions last.
    let mut requests = Walk::requests();
    // The parts of a thing are deleted before the thing.
    requests.sort_by_key(|one| {
        (
            one.method() == Method::DELETE,
            std::cmp::Reverse(one.path().len()),
        )
    });
    for request in &requests {
        for (whose, key) in &walk.callers {
            let is_allowed = request.action.is_none_or(|action| whose.may(action));
            if !is_allowed {
                continue;
            }
            let answer = walk.send(request, key).await;
            let about = format!(
                "{} with the key of {whose:?}: {}",
                request.operation,
                answer.text()
            );
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{about}");
            assert_ne!(answer.status, StatusCode::FORBIDDEN, "{about}");
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "{about}");
            let Whose::Own(scope) = whose else { continue };
            let is_monitor =
                request.path().starts_with("/api/v1/monitors") && answer.text().contains("\"ping_url\"");
            if is_monitor {
                let sees = Action::SeePingUrls.is_of_scope(*scope);
                assert_eq!(answer.text().contains(ping_url), sees, "{about}");
            }
        }
    }
    walk.harness.stop().await;
}
