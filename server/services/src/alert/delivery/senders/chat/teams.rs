//! Microsoft Teams, by a workflow of Power Automate that posts the requests to its webhook. Each alert is a message,
//! because a workflow returns no id.
//!
//! Texts from outside go into `TextRun`s, in which Teams reads neither Markdown nor mentions. Links are buttons.
//!
//! Sources: <https://learn.microsoft.com/en-us/connectors/teams/#microsoft-teams-webhook>,
//! <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook> (28 KB a message),
//! <https://learn.microsoft.com/en-us/microsoftteams/platform/task-modules-and-cards/cards/cards-format>,
//! <https://adaptivecards.io/explorer/RichTextBlock.html>, <https://adaptivecards.io/explorer/Action.OpenUrl.html>.

use std::sync::Arc;

use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::delivery::Outcome;
use deadbeat_domain::monitor::FieldError;
use futures::future::BoxFuture;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::answer::{judge, misfit, sent};
use super::super::http::{call_json, check_new_url, check_reach, check_url, host_of};
use super::super::markup::{Content, Markup, cut, render};
use super::super::{Kind, Outgoing, Parts, Sender, SetupError, read};
use super::{HEADLINE_CHARS, dead, said};
use crate::alert::delivery::outbound::Outbound;
use crate::alert::delivery::story::{Story, Tone};

const NAME: &str = "teams";
/// The most bytes of the body's blocks as JSON. A message has at most 28 KB; the headline, the buttons and the frame take the rest.
const BODY_BYTES: usize = 22_000;
/// Bytes of a line's block beside its text.
const BLOCK_BYTES: usize = 150;
/// The most characters of a button's label.
const LABEL_CHARS: usize = 80;
/// The workflow was deleted, or its address was replaced: error codes of <https://learn.microsoft.com/en-us/azure/logic-apps/>.
const DEAD: [&str; 2] = ["WorkflowNotFound", "DirectApiInvalidAuthorizationSignature"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TeamsSettings {
    webhook_url: String,
}

/// The kind `teams`.
pub struct Teams;

impl Teams {
    fn check_with(
        settings: &Settings,
        address: fn(&str, &str) -> Result<(), FieldError>,
    ) -> Result<(), Vec<FieldError>> {
        let settings: TeamsSettings = read(settings)?;
        address("webhook_url", &settings.webhook_url).map_err(|fault| vec![fault])
    }
}

impl Kind for Teams {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_url)
    }

    fn check_new(&self, settings: &Settings) -> Result<(), Vec<FieldError>> {
        Self::check_with(settings, check_new_url)
    }

    fn secrets(&self) -> &'static [&'static str] {
        &["webhook_url"]
    }

    fn host(&self, settings: &Settings) -> Option<String> {
        host_of(settings, "webhook_url")
    }

    fn sender(&self, parts: &Parts<'_>) -> Result<Arc<dyn Sender>, SetupError> {
        Ok(Arc::new(TeamsSender {
            outbound: parts.outbound.clone(),
        }))
    }

    #[cfg(test)]
    fn conforms(&'static self) -> BoxFuture<'static, ()> {
        Box::pin(tests::conforms())
    }
}

struct TeamsSender {
    outbound: Outbound,
}

impl TeamsSender {
    async fn attempt(&self, outgoing: &Outgoing, url: &str) -> Result<Outcome, Outcome> {
        let body = message(&Story::of(&outgoing.message));
        let answer = call_json(&self.outbound, Method::POST, url, &[], &body).await;
        let said = said(&answer);
        if let Some(error) = said["error"]["code"]
            .as_str()
            .filter(|error| DEAD.contains(error))
        {
            return Err(dead(&answer, outgoing, error));
        }
        Ok(sent(&judge(answer, outgoing, &[])?, None))
    }
}

impl Sender for TeamsSender {
    fn kind(&self) -> &'static str {
        NAME
    }

    fn check(&self, settings: &Settings) -> Result<(), FieldError> {
        check_reach(&self.outbound, settings, "webhook_url")
    }

    fn send(&self, outgoing: Outgoing) -> BoxFuture<'_, Outcome> {
        Box::pin(async move {
            let Ok(settings) = outgoing.settings.read::<TeamsSettings>() else {
                return misfit(NAME);
            };
            self.attempt(&outgoing, &settings.webhook_url)
                .await
                .unwrap_or_else(|outcome| outcome)
        })
    }
}

/// Builds a message with one card, as the trigger's template expects it.
fn message(story: &Story) -> Value {
    let headline = cut(&story.headline, HEADLINE_CHARS);
    let color = match story.tone {
        Tone::Bad => "Attention",
        Tone::Good => "Good",
        Tone::Plain => "Default",
    };
    let mut blocks = vec![json!({
        "type": "RichTextBlock",
        "inlines": [{"type": "TextRun", "text": headline, "size": "Large", "weight": "Bolder", "color": color}],
    })];
    blocks.extend(lines(&render(story, &Runs, Content::WithoutHeadline, BODY_BYTES)));
    let links = [
        story
            .link
            .as_ref()
            .map(|url| ("Open in Deadbeat".to_owned(), url)),
        story
            .cause
            .as_ref()
            .map(|cause| (cut(&cause.label(), LABEL_CHARS), &cause.url)),
    ];
    let actions: Vec<Value> = links
        .into_iter()
        .flatten()
        .map(|(title, url)| json!({"type": "Action.OpenUrl", "title": title, "url": url}))
        .collect();
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "fallbackText": headline,
                "msteams": {"width": "Full"},
                "body": blocks,
                "actions": actions,
            },
        }],
    })
}

/// Marks of bold lines, code and links. No text of a story holds control characters, because each is one printable
/// line.
const BOLD: char = '\u{1}';
const CODE: char = '\u{2}';
const LINK: char = '\u{3}';

/// Makes a block of each line. An empty line becomes space above the next one.
fn lines(text: &str) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut spacing = "Medium";
    for line in text.split('\n') {
        if line.starts_with(LINK) {
            continue;
        }
        if line.is_empty() {
            spacing = "Medium";
            continue;
        }
        let mut run = json!({"type": "TextRun", "text": line.trim_start_matches([BOLD, CODE])});
        if line.starts_with(BOLD) {
            run["weight"] = json!("Bolder");
        }
        if line.starts_with(CODE) {
            run["fontType"] = json!("Monospace");
        }
        blocks.push(json!({"type": "RichTextBlock", "spacing": spacing, "inlines": [run]}));
        spacing = "Small";
    }
    blocks
}

/// Plain lines, each with a mark of its kind.
struct Runs;

impl Markup for Runs {
    fn escape(&self, text: &str) -> String {
        text.to_owned()
    }

    fn bold(&self, escaped: &str) -> String {
        format!("{BOLD}{escaped}")
    }

    fn code(&self, command: &str) -> Option<String> {
        Some(format!("{CODE}{command}"))
    }

    /// Links are buttons.
    fn link(&self, _label: &str, _url: &str) -> String {
        LINK.to_string()
    }

    /// Counts the bytes of the blocks.
    fn length(&self, text: &str) -> usize {
        json!(text).to_string().len() + BLOCK_BYTES * text.matches('\n').count()
    }
}

#[cfg(test)]
mod tests;
