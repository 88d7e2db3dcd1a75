//! The pages of the causes: what a code means, which commands to type, how to prevent it. They are the documents of `docs/causes`, compiled into the
//! binary. An alert's link therefore shows the text of the server's own version. It needs neither an account nor the database.

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use actix_web::web::{self, Path, ServiceConfig};
use askama::Template;
use deadbeat_domain::incident::cause::Cause;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd};

use crate::web::{Frame, PageError, html};

const LIST: &str = include_str!("../../../../../docs/causes/README.md");

/// Returns a cause's document. A missing document fails the build.
macro_rules! document {
    ($cause:expr, $($variant:ident $code:literal)*) => {
        match $cause {
            $(Cause::$variant => include_str!(concat!("../../../../../docs/causes/", $code, ".md")),)*
        }
    };
}

fn document(cause: Cause) -> &'static str {
    document! { cause,
        Missed "MISSED"
        Unknown "UNKNOWN"
        Failed "FAILED"
        RetriesExhausted "RETRIES_EXHAUSTED"
        Revoked "REVOKED"
        Rejected "REJECTED"
        Expired "EXPIRED"
        TimeLimit "TIME_LIMIT"
        Overrun "OVERRUN"
        TooFast "TOO_FAST"
        WorkerKilled "WORKER_KILLED"
        WorkerLost "WORKER_LOST"
        GhostWorker "GHOST_WORKER"
        PrefetchStarvation "PREFETCH_STARVATION"
        DuplicateRun "DUPLICATE_RUN"
        RedeliveryLoop "REDELIVERY_LOOP"
        BeatDown "BEAT_DOWN"
        BeatCrashLoop "BEAT_CRASH_LOOP"
        BeatStalled "BEAT_STALLED"
        BeatStorm "BEAT_STORM"
        ScheduleReset "SCHEDULE_RESET"
        ScheduleEmptied "SCHEDULE_EMPTIED"
        BeatDuplicate "BEAT_DUPLICATE"
        AppNameShared "APP_NAME_SHARED"
        WorkerWithoutSdk "WORKER_WITHOUT_SDK"
        LostInBroker "LOST_IN_BROKER"
        QueueUnconsumed "QUEUE_UNCONSUMED"
        QueueSlaBreach "QUEUE_SLA_BREACH"
        RateLimited "RATE_LIMITED"
        HostOverloaded "HOST_OVERLOADED"
        BrokerDown "BROKER_DOWN"
        ResultBackendDown "RESULT_BACKEND_DOWN"
        ClockSkew "CLOCK_SKEW"
        HostLost "HOST_LOST"
    }
}

/// Mounts the routes.
pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/causes")
                .route(web::get().to(list))
                .route(web::method(Method::HEAD).to(list))
                .default_service(web::to(wrong_method)),
        )
        .service(
            web::resource("/causes/{code}")
                .route(web::get().to(one))
                .route(web::method(Method::HEAD).to(one))
                .default_service(web::to(wrong_method)),
        );
}

async fn wrong_method() -> Result<HttpResponse, PageError> {
    Err(PageError::WrongMethod("GET, HEAD"))
}

#[derive(Template)]
#[template(path = "cause.html")]
struct CausePage {
    frame: Frame,
    title: &'static str,
    body: String,
}

async fn list() -> HttpResponse {
    shown("Causes", LIST)
}

async fn one(code: Path<String>) -> Result<HttpResponse, PageError> {
    let cause = Cause::parse(&code).ok_or(PageError::NotFound("cause"))?;
    Ok(shown(cause.as_str(), document(cause)))
}

fn shown(title: &'static str, document: &str) -> HttpResponse {
    html(
        StatusCode::OK,
        &CausePage {
            frame: Frame::default(),
            title,
            body: rendered(document),
        },
    )
}

/// Renders a document as HTML. Commands look as in incidents. Each line of a command block becomes its own block, so that one click copies one
/// command, without the next one. Links to other documents lead to their pages.
fn rendered(document: &str) -> String {
    let mut is_code = false;
    let events = Parser::new_ext(document, Options::ENABLE_TABLES).flat_map(|event| match event {
        Event::Start(Tag::CodeBlock(_)) => {
            is_code = true;
            Vec::new()
        }
        Event::End(TagEnd::CodeBlock) => {
            is_code = false;
            Vec::new()
        }
        Event::Text(text) if is_code => text.lines().flat_map(command).collect(),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => vec![Event::Start(Tag::Link {
            link_type,
            dest_url: address(dest_url),
            title,
            id,
        })],
        // Show tags as text. They could only be our own, and no document needs them.
        Event::Html(text) | Event::InlineHtml(text) => vec![Event::Text(text)],
        other => vec![other],
    });
    let mut body = String::with_capacity(document.len() * 2);
    pulldown_cmark::html::push_html(&mut body, events);
    body.replace("<table>", r#"<div class="wide"><table>"#)
        .replace("</table>", "</table></div>")
}

fn command<'a>(line: &str) -> [Event<'a>; 3] {
    [
        Event::Html(r#"<pre class="command"><code>"#.into()),
        Event::Text(line.to_owned().into()),
        Event::Html("</code></pre>\n".into()),
    ]
}

/// Returns the address on this site for a link in a document.
fn address(link: CowStr<'_>) -> CowStr<'_> {
    match link.strip_suffix(".md") {
        Some("README") => "/causes".into(),
        Some(code) => Cause::parse(code).map_or(link.clone(), |cause| cause.page().into()),
        None => link,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(body: &str) -> Vec<&str> {
        body.split("href=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect()
    }

    #[test]
    fn every_cause_has_a_document_of_its_own_which_names_it_and_has_all_its_parts() {
        for cause in Cause::ALL {
            let body = rendered(document(cause));
            assert!(
                body.starts_with(&format!("<h1>{}</h1>", cause.as_str())),
                "{cause:?}"
            );
            let parts = [
                "What it means",
                "The evidence",
                "What to type",
                "How to prevent it",
                "What it is not",
            ];
            let found: Vec<&str> = body
                .split("<h2>")
                .skip(1)
                .filter_map(|rest| rest.split("</h2>").next())
                .collect();
            assert_eq!(found, parts, "{cause:?}");
        }
    }

    #[test]
    fn the_list_leads_to_every_cause() {
        let body = rendered(LIST);
        let links = links(&body);
        for cause in Cause::ALL {
            assert!(links.contains(&cause.page().as_str()), "{cause:?}");
        }
    }

    /// The server does not serve other documents, so a link to one would be broken.
    #[test]
    fn documents_link_only_to_pages_that_are_served_or_to_other_sites() {
        let pages: Vec<String> = Cause::ALL
            .map(Cause::page)
            .into_iter()
            .chain(["/causes".to_owned()])
            .collect();
        for document in Cause::ALL.map(document).into_iter().chain([LIST]) {
            let body = rendered(document);
            for link in links(&body) {
                assert!(
                    link.starts_with("https://") || pages.iter().any(|page| page == link),
                    "{link} in {}",
                    &body[..40]
                );
            }
        }
    }

    #[test]
    fn commands_are_escaped_and_marked_as_commands_and_tags_are_text() {
        let body = rendered(
            "```sh\ncelery -A <app> 'x'\nls\n```\n\n<b>bold</b> [g](GHOST_WORKER.md) [o](OTHER.md)\n",
        );

        assert_eq!(
            body,
            "<pre class=\"command\"><code>celery -A &lt;app&gt; 'x'</code></pre>\n<pre class=\"command\"><code>ls</code></pre>\n\
             <p>&lt;b&gt;bold&lt;/b&gt; <a href=\"/causes/GHOST_WORKER\">g</a> <a href=\"OTHER.md\">o</a></p>\n"
        );
    }
}
