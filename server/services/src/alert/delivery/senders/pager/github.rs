//! Issues of a repository on GitHub.
//!
//! One incident is one issue: an acknowledgement, a reminder and an escalation are comments, and the end of the
//! incident closes the issue. The handle is the issue's number.
//!
//! Sources: <https://docs.github.com/en/rest/issues/issues>, <https://docs.github.com/en/rest/issues/comments>,
//! <https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api>,
//! <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::{Outcome, Reason};
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_token};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::check::all;
use super::event::{Action, Page, nothing_to_do};
use super::markdown::Markdown;
use super::plain::Plain;
use crate::alert::delivery::outbound::{Answer, Outbound};
use crate::alert::delivery::story::Story;

const NAME: &str = "github";
const HOST: &str = "api.github.com";
/// The version of the API (<https://docs.github.com/en/rest/about-the-rest-api/api-versions>).
const VERSION: &str = "2022-11-28";
/// The most characters of a title. GitHub allows 256.
const TITLE_CHARS: usize = 250;
/// The most bytes of a body. GitHub allows 65,536 characters, but repeats the body in its answer, of which Deadbeat reads 16 KiB.
const BODY_BYTES: usize = 5_000;
/// Permanent statuses for a new issue: the token is invalid or expired, or the repository has no issues.
const PERMANENT: [u16; 2] = [401, 410];

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GithubSettings {
    token: String,
    repository: String,
}

/// The kind `github`.
pub struct Github;

impl Kind for Github {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        let settings: GithubSettings = read(settings)?;
        all([
            check_token("token", &settings.token, 300),
            check_repository(&settings.repository),
        ])
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["token"]
    }

    fn host(&self, _settings: &Settings) -> Option<String> {
        Some(HOST.to_owned())
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(GithubSender {
            outbound: parts.outbound.clone(),
            api: format!("https://{HOST}"),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

fn check_repository(repository: &str) -> Result<(), FieldError> {
    let is_name = |name: &str| {
        (1..=100).contains(&name.len())
            && !matches!(name, "." | "..")
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match repository.split_once('/') {
        Some((owner, name)) if is_name(owner) && is_name(name) => Ok(()),
        _ => Err(FieldError::new(
            "/settings/repository",
            "is not the name of a repository such as octocat/hello-world",
        )),
    }
}

struct GithubSender {
    outbound: Outbound,
    api: String,
}

/// The handle of an incident's issue, by which later alerts find it.
#[derive(Clone, Deserialize)]
struct Handle {
    issue: u64,
}

/// Why a call failed.
enum Fault {
    /// The issue was deleted or moved to another repository.
    Gone,
    /// The attempt ends with this outcome.
    Ended(Outcome),
}

impl GithubSender {
    async fn attempt(&self, outgoing: Outgoing) -> Outcome {
        let Ok(settings) = outgoing.settings.read::<GithubSettings>() else {
            return misfit(NAME);
        };
        let calls = Calls {
            sender: self,
            outgoing: &outgoing,
            settings: &settings,
        };
        let page = Page::of(&outgoing);
        let story = Story::of(&outgoing.message);
        let handle: Option<Handle> = outgoing
            .handle
            .clone()
            .and_then(|handle| serde_json::from_value(handle).ok());
        if let Some(Handle { issue }) = handle {
            match calls.follow_up(issue, &page, &story).await {
                Ok(answer) => return sent(&answer, outgoing.handle.clone()),
                Err(Fault::Ended(outcome)) => return outcome,
                Err(Fault::Gone) => {}
            }
        }
        if page.action == Action::Resolve {
            // Do not open an issue only to say that the incident is over.
            return nothing_to_do();
        }
        match calls.open(&page, &story).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }
}

/// The calls of one attempt.
struct Calls<'a> {
    sender: &'a GithubSender,
    outgoing: &'a Outgoing,
    settings: &'a GithubSettings,
}

impl Calls<'_> {
    async fn open(&self, page: &Page, story: &Story) -> Result<Outcome, Outcome> {
        let body = json!({
            "title": Plain.escape(&cut(&story.headline, TITLE_CHARS)),
            "body": render(story, &Markdown, Content::WithoutHeadline, BODY_BYTES),
        });
        let answer = self.call(Method::POST, "", &body, &PERMANENT).await?;
        let issue: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let number = issue["number"].as_u64();
        if let Some(number) = number
            && page.is_test
        {
            // The issue is open, so the test succeeded. If this attempt failed now, the next one would open another
            // issue.
            let _ = self.close(number).await;
        }
        Ok(sent(&answer, number.map(|issue| json!({"issue": issue}))))
    }

    /// Closes the issue first, then comments. If the second call fails, the next attempt repeats both, and a repeated
    /// closing disturbs nobody.
    async fn follow_up(&self, issue: u64, page: &Page, story: &Story) -> Result<Answer, Fault> {
        if page.action == Action::Resolve {
            self.close(issue).await?;
        }
        let body = json!({"body": render(story, &Markdown, Content::All, BODY_BYTES)});
        let comments = format!("/{issue}/comments");
        self.call_issue(Method::POST, &comments, &body).await
    }

    async fn close(&self, issue: u64) -> Result<Answer, Fault> {
        let body = json!({"state": "closed", "state_reason": "completed"});
        self.call_issue(Method::PATCH, &format!("/{issue}"), &body).await
    }

    async fn call_issue(&self, method: Method, path: &str, body: &Value) -> Result<Answer, Fault> {
        // 410 here means that the issue was deleted; the channel is not at fault.
        self.call(method, path, body, &PERMANENT[..1])
            .await
            .map_err(|outcome| match outcome {
                Outcome::Retry {
                    code: Some(301 | 404 | 410),
                    ..
                } => Fault::Gone,
                outcome => Fault::Ended(outcome),
            })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        permanent: &[u16],
    ) -> Result<Answer, Outcome> {
        let url = format!(
            "{}/repos/{}/issues{path}",
            self.sender.api, self.settings.repository
        );
        let authorization = format!("Bearer {}", self.settings.token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("accept", "application/vnd.github+json"),
            ("x-github-api-version", VERSION),
        ];
        let answer = call_json(&self.sender.outbound, method, &url, &headers, body).await;
        judge(answer, self.outgoing, permanent).map_err(limited)
    }
}

/// Treats 403 as a rate limit where it is one: GitHub also answers 403 to too many requests.
fn limited(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Retry {
            code: Some(403),
            detail,
            retry_after,
            ..
        } if retry_after.is_some() || detail.to_ascii_lowercase().contains("rate limit") => Outcome::Retry {
            reason: Reason::RateLimit,
            code: Some(403),
            detail,
            retry_after,
        },
        outcome => outcome,
    }
}

impl Sender for GithubSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(outgoing))
    }
}

#[cfg(test)]
mod tests;
