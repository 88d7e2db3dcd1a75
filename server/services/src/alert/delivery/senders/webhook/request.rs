//! Makes the request of an attempt. The rehearsal finds the faults of templates before an alert needs them.

use deadbeat_domain::alert::message::{Event, Message};
use deadbeat_domain::ids::DeliveryId;
use deadbeat_domain::monitor::FieldError;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::Url;

use super::escape::Language;
use super::settings::{Body, Form, JSON, Texts};
use super::template::{Compiled, Engine, Fault, apart};
use super::variables::variables;
use crate::alert::example;

/// The most characters of a URL.
const URL_CHARS: usize = 8_000;
/// The number of attempts that render templates at a time in a process. The worst template takes a core for 0.1 s.
static TURNS: Semaphore = Semaphore::const_new(2);

/// A request without its signature.
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The fault of a template, in words, because of which the body is the standard message.
    pub(super) fault: Option<String>,
}

/// Makes the request. If a template fails, the alert goes out in the standard form, so that a faulty template loses no alert.
pub(super) async fn prepare(form: Form, id: DeliveryId, message: Message) -> Prepared {
    let texts = form.texts();
    if texts.templates().next().is_none() {
        return finish(&form, &texts, &message, without_templates(&texts, id, &message));
    }
    let turn = TURNS.acquire().await;
    let of_task = (texts.clone(), message.clone());
    let rendered = tokio::task::spawn_blocking(move || render(&of_task.0, id, &of_task.1)).await;
    drop(turn);
    let made = rendered.unwrap_or_else(|_| Err("a fault in Deadbeat".to_owned()));
    finish(&form, &texts, &message, made)
}

/// The parts of a request that depend on the message.
struct Made {
    content_type: Option<String>,
    body: Vec<u8>,
    /// The path to append to the address.
    path: Option<String>,
}

fn standard(body: &Value) -> Made {
    Made {
        content_type: Some(JSON.to_owned()),
        body: body.to_string().into_bytes(),
        path: None,
    }
}

fn without_templates(texts: &Texts, id: DeliveryId, message: &Message) -> Result<Made, String> {
    Ok(match texts.body(message.alert()) {
        Body::Ready(preset) => Made {
            content_type: Some(preset.content_type().to_owned()),
            body: preset.body(id, message).into_bytes(),
            path: None,
        },
        Body::None => Made {
            content_type: None,
            body: Vec::new(),
            path: None,
        },
        Body::Standard | Body::Template { .. } => standard(&message.to_json()),
    })
}

fn render(texts: &Texts, id: DeliveryId, message: &Message) -> Result<Made, String> {
    let in_words = |field: &str, fault: Fault| match fault.at {
        Some(at) => format!(
            "{field}, line {}, column {}: {}",
            at.line, at.column, fault.message
        ),
        None => format!("{field}: {}", fault.message),
    };
    let work = || {
        let variables = variables(id, message);
        let mut made = without_templates(texts, id, message)?;
        if let Body::Template { field, source } = texts.body(message.alert()) {
            let engine = Engine::new(Language::of(texts.content_type()));
            let text = engine
                .compile(source)
                .and_then(|template| template.render(&variables))
                .map_err(|fault| in_words(field, fault))?;
            made.content_type = Some(texts.content_type().to_owned());
            made.body = text.into_bytes();
        }
        if let Some(path) = &texts.path {
            let engine = Engine::new(Language::Path);
            let text = engine
                .compile(path)
                .and_then(|template| template.render(&variables))
                .map_err(|fault| in_words("path", fault))?;
            made.path = Some(text);
        }
        Ok(made)
    };
    apart(work).unwrap_or_else(|fault| Err(fault.message))
}

fn finish(form: &Form, texts: &Texts, message: &Message, made: Result<Made, String>) -> Prepared {
    let joined = made.and_then(|made| {
        let url = match &made.path {
            Some(path) => join(&form.url, path).map_err(|fault| format!("path: {fault}"))?,
            None => form.url.clone(),
        };
        Ok((made, url))
    });
    let ((made, url), fault) = match joined {
        Ok(ready) => (ready, None),
        Err(fault) => {
            let mut body = message.to_json();
            if let Value::Object(fields) = &mut body {
                let note =
                    format!("A template of this channel failed ({fault}), so this is the standard message.");
                fields.insert("note".to_owned(), json!(note));
            }
            ((standard(&body), form.url.clone()), Some(fault))
        }
    };
    let mut headers: HeaderMap = form.headers().collect();
    if let Some(content_type) = &made.content_type
        && let Ok(value) = HeaderValue::from_str(content_type)
    {
        headers.insert(CONTENT_TYPE, value);
    }
    let method = match texts.method() {
        Method::GET if fault.is_some() => Method::POST,
        method => method,
    };
    Prepared {
        method,
        url,
        headers,
        body: made.body,
        fault,
    }
}

/// Appends a path with its query to an address with its query. The host stays the same: a template cannot choose another one.
///
/// # Errors
/// A text for people. It does not repeat the address, which is a secret.
fn join(url: &str, path: &str) -> Result<String, String> {
    if path.contains(['#', '\\']) || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("the path that it makes has a space, a backslash or a #".to_owned());
    }
    let mut url = Url::parse(url).map_err(|_| "the address of the channel cannot be read".to_owned())?;
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    // They would lead out of the path that the channel's owner chose.
    let is_way_up = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(is_way_up) {
        return Err("the path that it makes has a part . or ..".to_owned());
    }
    if !path.is_empty() {
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}", path.trim_start_matches('/')));
    }
    if let Some(query) = query {
        let all: Vec<&str> = url
            .query()
            .into_iter()
            .chain([query])
            .filter(|part| !part.is_empty())
            .collect();
        let all = all.join("&");
        url.set_query((!all.is_empty()).then_some(all.as_str()));
    }
    if url.as_str().len() > URL_CHARS {
        return Err(format!(
            "the address that it makes has more than {URL_CHARS} characters"
        ));
    }
    Ok(url.into())
}

/// Renders every kind of message with each template.
///
/// # Errors
/// The first fault of each template.
pub(super) fn rehearse(texts: &Texts) -> Result<(), Vec<FieldError>> {
    let work = || {
        let messages: Vec<Message> = example::every_kind();
        let id = DeliveryId::generate();
        let with_variables: Vec<(&Message, Value)> = messages
            .iter()
            .map(|message| (message, variables(id, message)))
            .collect();
        texts
            .templates()
            .filter_map(|(field, source)| {
                let language = match field {
                    "path" => Language::Path,
                    _ => Language::of(texts.content_type()),
                };
                let concerned = with_variables.iter().filter(|(message, _)| {
                    field == "path"
                        || matches!(texts.body(message.alert()), Body::Template { field: used, .. } if used == field)
                });
                try_out(field, source, language, concerned).err()
            })
            .collect()
    };
    let faults: Vec<FieldError> =
        apart(work).unwrap_or_else(|fault| vec![FieldError::new("/settings", fault.message)]);
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn try_out<'a>(
    field: &'static str,
    source: &str,
    language: Language,
    messages: impl Iterator<Item = &'a (&'a Message, Value)>,
) -> Result<(), FieldError> {
    let engine = Engine::new(language);
    let template: Compiled<'_> = engine
        .compile(source)
        .map_err(|fault| of_template(field, &fault, None))?;
    for (message, variables) in messages {
        let text = template.render(variables);
        let ended = text.and_then(|text| {
            if field != "path" {
                return Ok(());
            }
            let joined = join("https://example.org/hook", &text);
            joined.map(drop).map_err(|message| Fault {
                message,
                near: None,
                at: None,
            })
        });
        ended.map_err(|fault| of_template(field, &fault, Some(message)))?;
    }
    Ok(())
}

fn of_template(field: &str, fault: &Fault, message: Option<&Message>) -> FieldError {
    let mut words = match fault.at {
        Some(at) => format!("line {}, column {}: {}", at.line, at.column, fault.message),
        None => fault.message.clone(),
    };
    if let Some(near) = &fault.near {
        words.push_str(&format!(", near {near:?}"));
    }
    if let Some(message) = message {
        words.push_str(&format!(" (in {}", message.alert().event_type()));
        if let Event::Incident(event) = &message.event {
            words.push_str(&format!(", {}", event.incident.cause.code));
        }
        words.push(')');
    }
    FieldError {
        position: fault.at.map(|at| at.position),
        line_and_column: fault.at.map(|at| (at.line, at.column)),
        ..FieldError::new(format!("/settings/{field}"), words)
    }
}

#[cfg(test)]
mod tests;
