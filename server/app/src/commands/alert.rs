//! `deadbeat alert …`

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use deadbeat_domain::alert::Alert;
use deadbeat_domain::alert::channel::Settings;
use deadbeat_domain::alert::message::Message;
use deadbeat_domain::ids::ChannelId;
use deadbeat_domain::incident::cause::Cause;
use deadbeat_domain::monitor::FieldError;
use deadbeat_services::alert::delivery::senders::{self, KINDS, Kind};
use deadbeat_services::alert::example;
use deadbeat_services::alert::example::preview::{self, Preview, Request};
use serde_json::Value;
use uuid::Uuid;

use crate::config::{DatabaseConfig, SecretConfig};
use crate::database::Database;

/// The commands about alerts.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a channel would send about a made-up incident. Sends nothing; needs a database only for --channel.
    Preview(Box<PreviewCommand>),
}

/// The arguments of `preview`.
#[derive(Debug, Args)]
pub struct PreviewCommand {
    /// The kind of the channel. Without --settings, it has the settings of the example in docs/channels
    #[arg(long, value_parser = kinds(), required_unless_present = "channel", conflicts_with = "channel")]
    kind: Option<String>,
    /// The cause of the incident
    #[arg(long, value_parser = causes(), default_value = Cause::BeatDown.as_str(), hide_possible_values = true)]
    cause: String,
    /// What happened
    #[arg(long, value_parser = events(), default_value = Alert::Opened.as_str())]
    event: String,
    /// The settings of the kind, as the API takes them: '{"url": "https://…", "body": "{{ words.text }}"}'
    #[arg(long, value_name = "JSON", conflicts_with = "channel")]
    settings: Option<String>,
    /// The id of an existing channel: shows its messages without its secrets
    #[arg(long, value_name = "ID")]
    channel: Option<Uuid>,
    /// Give everything the longest allowed name
    #[arg(long)]
    long_names: bool,
    /// Write the HTML of a mail into this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the answer of the API: requests, mail, unsent
    #[arg(long)]
    json: bool,
    /// The database of --channel.
    #[command(flatten)]
    database: DatabaseConfig,
    /// The keys of --channel.
    #[command(flatten)]
    secrets: SecretConfig,
}

fn kinds() -> PossibleValuesParser {
    PossibleValuesParser::new(KINDS.iter().map(|kind| kind.name()))
}

fn causes() -> PossibleValuesParser {
    PossibleValuesParser::new(Cause::ALL.map(Cause::as_str))
}

fn events() -> PossibleValuesParser {
    PossibleValuesParser::new(Alert::ALL.map(Alert::as_str))
}

/// Runs a command.
///
/// # Errors
/// A text for people: a setting is wrong, or the database is away.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Command::Preview(command) = command;
    let preview = previewed(&command).await?;
    if let Some(file) = &command.html {
        let mail = preview.mail.as_ref();
        let mail = mail.context("only mails have HTML: --kind email, or a --channel of that kind")?;
        std::fs::write(file, &mail.html).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if command.json {
        println!("{}", preview.to_json());
    } else {
        print!("{}", words(&preview));
    }
    Ok(())
}

async fn previewed(command: &PreviewCommand) -> anyhow::Result<Preview> {
    // The parsers of the arguments accept only these.
    let cause = Cause::parse(&command.cause).context("there is no such cause")?;
    let alert = Alert::parse(&command.event).context("there is no such event")?;
    let mut message = example::of(alert, cause);
    if command.long_names {
        message = example::with_long_names(message);
    }
    if let Some(id) = command.channel {
        return of_channel(command, ChannelId(id), message).await;
    }
    let kind = command.kind.as_deref().and_then(senders::kind);
    let kind = kind.context("there is no such kind")?;
    let values = match &command.settings {
        Some(text) => serde_json::from_str(text).context("--settings is no JSON")?,
        None => preview::example_settings(kind.name()).context("the kind has no example")?,
    };
    let Value::Object(values) = values else {
        anyhow::bail!("--settings is no object");
    };
    let settings = Settings::new(kind.name(), values);
    check(kind, &settings).map_err(|faults| in_words(&faults))?;
    Ok(preview::of_settings(kind, settings, message).await?)
}

fn check(kind: &dyn Kind, settings: &Settings) -> Result<(), Vec<FieldError>> {
    kind.check_new(settings)?;
    kind.rehearse(settings)
}

fn in_words(faults: &[FieldError]) -> anyhow::Error {
    let lines = faults
        .iter()
        .map(|fault| format!("\n  {} {}", fault.pointer, fault.message));
    anyhow::anyhow!("the settings cannot be used:{}", lines.collect::<String>())
}

async fn of_channel(command: &PreviewCommand, id: ChannelId, message: Message) -> anyhow::Result<Preview> {
    let keyring = command.secrets.keyring(&command.database)?;
    let database = Database::of_command(&command.database).await?;
    let store = database.store()?;
    let preview = preview::of_channel(&store.reader(), &keyring, id, message).await;
    store.close().await;
    database.stop().await;
    Ok(preview?)
}

/// Returns the preview as text for people.
fn words(preview: &Preview) -> String {
    let mut out = String::new();
    if let Some(mail) = &preview.mail {
        // Writing into a String cannot fail.
        let _ = write!(out, "Subject: {}\n\n{}", mail.subject, mail.text);
    }
    for (index, request) in preview.requests.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        push_request(&mut out, request);
    }
    if let Some(why) = &preview.unsent {
        let _ = writeln!(out, "{why}");
    }
    out
}

fn push_request(out: &mut String, request: &Request) {
    let _ = writeln!(out, "{} {}", request.method, request.url);
    for (name, value) in &request.headers {
        let _ = writeln!(out, "{name}: {value}");
    }
    if request.body.is_empty() {
        return;
    }
    out.push('\n');
    let Ok(text) = std::str::from_utf8(&request.body) else {
        let _ = writeln!(out, "({} bytes that are no text)", request.body.len());
        return;
    };
    match serde_json::from_str::<Value>(text) {
        Ok(json) => {
            let _ = writeln!(out, "{json:#}");
        }
        Err(_) => {
            let _ = writeln!(out, "{}", text.trim_end_matches('\n'));
        }
    }
}
