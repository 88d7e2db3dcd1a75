//! Every setting: its name, its default, its meaning. Only this module reads the environment (through clap).

pub mod accounts;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use deadbeat_http::extract::client_ip::TrustedProxies;
use deadbeat_services::operation::retention::RetentionSettings;
use deadbeat_services::secret::keyring::{FILE, KeyError, Keyring};
use url::Url;

/// The settings that every command shares: the database.
#[derive(Debug, Clone, Args)]
pub struct DatabaseConfig {
    /// Folder of the embedded database and of the spool. The server creates it if it is missing.
    #[arg(
        long,
        env = "DEADBEAT_DATA_DIR",
        default_value = "data",
        value_name = "FOLDER"
    )]
    pub data_dir: PathBuf,

    /// URL of a PostgreSQL to use instead of the embedded one: postgres://user:password@host:5432/database
    #[arg(
        long,
        env = "DEADBEAT_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub database_url: Option<Secret>,

    /// Folder of PostgreSQL's programs for the embedded database, if the server does not find them.
    #[arg(long, env = "DEADBEAT_POSTGRES_BIN", value_name = "FOLDER", value_parser = clap::value_parser!(std::ffi::OsString))]
    pub postgres_bin: Option<std::ffi::OsString>,
}

/// The keys that encrypt the secrets of channels.
#[derive(Debug, Clone, Args)]
pub struct SecretConfig {
    /// Keys for the secrets of channels: 32 bytes each in base64 or hexadecimal, separated by commas. The first key encrypts, all decrypt. Without
    /// this setting, the first start makes the file secret.key in the data folder.
    #[arg(
        long,
        env = "DEADBEAT_SECRET_KEY",
        value_name = "KEY,…",
        hide_env_values = true
    )]
    pub secret_key: Option<Secret>,
}

impl SecretConfig {
    /// Returns the keys of the setting, followed by those of the data folder's file.
    ///
    /// # Errors
    /// If a key is invalid, or other users may read the file.
    pub fn keyring(&self, database: &DatabaseConfig) -> Result<Keyring, KeyError> {
        let setting = set(self.secret_key.as_ref()).unwrap_or_default();
        Keyring::load(setting, Some(database.data_dir.join(FILE)))
    }
}

/// The source of time zones for every command.
#[derive(Debug, Clone, Args)]
pub struct ZoneConfig {
    /// Folder of the machine's time zone database. It is used if its release is newer than the built-in one. Empty: never.
    #[arg(
        long,
        env = "DEADBEAT_ZONEINFO",
        default_value = "/usr/share/zoneinfo",
        value_name = "FOLDER",
        global = true,
        value_parser = clap::value_parser!(std::ffi::OsString)
    )]
    pub zoneinfo: std::ffi::OsString,
}

/// The settings of the server.
#[derive(Debug, Clone, Args)]
pub struct ServeConfig {
    /// The database.
    #[command(flatten)]
    pub database: DatabaseConfig,

    /// The encryption keys.
    #[command(flatten)]
    pub secrets: SecretConfig,

    /// Address and port to listen on.
    #[arg(
        long,
        env = "DEADBEAT_LISTEN",
        default_value = "127.0.0.1:8000",
        value_name = "ADDRESS:PORT"
    )]
    pub listen: SocketAddr,

    /// URL under which clients reach the server, for ping URLs and links. Default: http://<listen>
    #[arg(long, env = "DEADBEAT_SITE_URL", value_name = "URL", value_parser = site_url)]
    pub site_url: Option<SiteUrl>,

    /// Parts of the server that this process runs. Any number of processes share one database. Every process answers health and metrics.
    #[arg(
        long = "role",
        env = "DEADBEAT_ROLE",
        value_enum,
        value_name = "ROLE",
        default_value = "all",
        value_delimiter = ','
    )]
    pub roles: Vec<Role>,

    /// Mail address of the account that the first start creates.
    #[arg(
        long,
        env = "DEADBEAT_FIRST_ACCOUNT",
        default_value = "admin@localhost",
        value_name = "ADDRESS"
    )]
    pub first_account: String,

    /// Networks of the reverse proxies whose X-Forwarded-For the server trusts, separated by commas. Empty: none.
    #[arg(
        long,
        env = "DEADBEAT_TRUSTED_PROXIES",
        default_value = "127.0.0.0/8,::1",
        value_name = "NETWORKS"
    )]
    pub trusted_proxies: TrustedProxies,

    /// Most open connections of one address, 1 to 1000000. Trusted proxies have no such limit.
    #[arg(long, env = "DEADBEAT_CONNECTIONS_PER_ADDRESS", default_value_t = 1_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections_per_address: u32,

    /// Most open connections of this process, 1 to 1000000; never more than the system's limit of open files allows.
    #[arg(long, env = "DEADBEAT_CONNECTIONS", default_value_t = 20_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,

    /// 1: webhooks may connect to private networks and to this machine. Off by default, because anybody who may add a channel could otherwise
    /// reach hosts that only this server can reach.
    #[arg(long, env = "DEADBEAT_ALLOW_PRIVATE_NETWORKS", value_name = "0|1", default_value = "0", value_parser = zero_or_one,
        num_args = 0..=1, default_missing_value = "1")]
    pub allow_private_networks: bool,

    /// Ports below 1024 that webhooks may use besides 80 and 443, separated by commas.
    #[arg(long, env = "DEADBEAT_WEBHOOK_PORTS", default_value = "", value_name = "PORT,…", value_parser = ports)]
    pub webhook_ports: Ports,

    /// 1: alerts go to a mail address only after its owner has confirmed. Otherwise anybody who may add a channel could make this server send
    /// mail to strangers. 0: alerts go to every mail address at once.
    #[arg(long, env = "DEADBEAT_CONFIRM_MAIL", value_name = "0|1", default_value = "1", value_parser = one_unless_zero,
        num_args = 0..=1, default_missing_value = "1")]
    pub confirm_mail: bool,

    /// Accounts and sessions.
    #[command(flatten)]
    pub accounts: accounts::AccountConfig,

    /// Mail server: smtp://host:25, smtp://user:password@host:587?tls=required, smtps://user:password@host:465
    #[arg(long, env = "DEADBEAT_SMTP_URL", value_name = "URL", hide_env_values = true)]
    pub smtp_url: Option<Secret>,

    /// Sender address of mails.
    #[arg(
        long,
        env = "DEADBEAT_SMTP_FROM",
        default_value = "Deadbeat <deadbeat@localhost>",
        value_name = "ADDRESS"
    )]
    pub smtp_from: String,

    /// How long the server keeps data.
    #[command(flatten)]
    pub retention: RetentionConfig,

    /// Pings per second of one ping key, and of one ping URL, on average, 1 to 1000000; a burst may have 20 times as many.
    #[arg(long, env = "DEADBEAT_PINGS_PER_SECOND", default_value_t = 1_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pings_per_second: u32,

    /// Megabytes of ping bodies per day that the server keeps for one ping key, and for one ping URL, 1 to 1000000; a burst may have a 24th of them.
    #[arg(long, env = "DEADBEAT_BODY_MB_PER_DAY", default_value_t = 10_000, value_name = "MEGABYTES", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub body_mb_per_day: u32,

    /// Monitors per day that the ping keys of one project may create, 0 to 100000.
    #[arg(long, env = "DEADBEAT_CREATED_MONITORS_PER_DAY", default_value_t = 20_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub created_monitors_per_day: u32,

    /// API keys per day that one project may issue, 0 to 100000.
    #[arg(long, env = "DEADBEAT_API_KEYS_PER_DAY", default_value_t = 200, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub api_keys_per_day: u32,

    /// Megabytes of pings that the server acknowledges and keeps in files of the data folder while it cannot reach the database. 0: it refuses
    /// these pings with "try again".
    #[arg(long, env = "DEADBEAT_SPOOL_MB", default_value_t = 256, value_name = "MEGABYTES", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub spool_mb: u32,

    /// Seconds for which no process judges if this one falls silent without signing off, 0 to 86400. It may hold pings that it has acknowledged.
    #[arg(long, env = "DEADBEAT_LISTENER_PATIENCE", default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub listener_patience: u32,

    /// Ping URL at another monitoring service. This process pings it every half minute, but only while all of its loops really work.
    #[arg(
        long,
        env = "DEADBEAT_WATCHDOG_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub watchdog_url: Option<Secret>,

    /// Log level: error, warn, info, debug; or levels per module in the syntax of RUST_LOG.
    #[arg(long, env = "DEADBEAT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// Log format: text, or json (one object per line).
    #[arg(long, env = "DEADBEAT_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"], value_name = "FORMAT")]
    pub log_format: String,
}

/// Settings of the retention: how long the server keeps each kind of data.
#[derive(Debug, Clone, Args)]
pub struct RetentionConfig {
    /// Whole days for which the server keeps pings, 1 to 3650.
    #[arg(long, env = "DEADBEAT_PING_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub ping_days: u16,

    /// Whole days for which the server keeps bodies of pings, 1 to 3650; never longer than the pings.
    #[arg(long, env = "DEADBEAT_PING_BODY_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub ping_body_days: u16,

    /// The most pings that the server keeps for each monitor, whatever their age, 1 to 1000000. It removes the oldest first.
    #[arg(long, env = "DEADBEAT_PINGS_PER_MONITOR", default_value_t = 10_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pings_per_monitor: u32,

    /// Whole days for which the server keeps ended runs, 1 to 3650.
    #[arg(long, env = "DEADBEAT_RUN_DAYS", default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub run_days: u16,

    /// Whole days for which the server keeps the history of runs, 1 to 3650.
    #[arg(long, env = "DEADBEAT_TRACE_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub trace_days: u16,

    /// Whole days for which the server keeps resolved incidents, 1 to 3650.
    #[arg(long, env = "DEADBEAT_INCIDENT_DAYS", default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub incident_days: u16,

    /// Whole days for which the server keeps changes of status, 1 to 3650.
    #[arg(long, env = "DEADBEAT_TRANSITION_DAYS", default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub transition_days: u16,

    /// Whole days for which the change feed keeps changes, 1 to 3650.
    #[arg(long, env = "DEADBEAT_CHANGE_DAYS", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub change_days: u16,

    /// Whole days for which the audit trail keeps entries, 1 to 3650.
    #[arg(long, env = "DEADBEAT_AUDIT_DAYS", default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub audit_days: u16,

    /// Whole days for which the server keeps settled deliveries, 1 to 3650; never longer than their incident.
    #[arg(long, env = "DEADBEAT_DELIVERY_DAYS", default_value_t = 90, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub delivery_days: u16,

    /// Whole days for which the server keeps attempts of settled deliveries, 1 to 3650; never longer than their delivery.
    #[arg(long, env = "DEADBEAT_ATTEMPT_DAYS", default_value_t = 30, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub attempt_days: u16,

    /// Whole days for which the server keeps blind spells, 400 to 3650. A blind spell may excuse a late report for 400 days.
    #[arg(long, env = "DEADBEAT_BLIND_SPELL_DAYS", default_value_t = 400, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(400..=3650))]
    pub blind_spell_days: u16,

    /// Whole days for which the server keeps workers that signed off, counted from their last report, 1 to 3650.
    #[arg(long, env = "DEADBEAT_WORKER_DAYS", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub worker_days: u16,

    /// Whole days for which the server keeps queues after their last sample, 1 to 3650.
    #[arg(long, env = "DEADBEAT_QUEUE_DAYS", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub queue_days: u16,

    /// Whole days for which the server keeps brokers after their last sample, 1 to 3650.
    #[arg(long, env = "DEADBEAT_BROKER_DAYS", default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub broker_days: u16,

    /// Whole days for which the server keeps revoked API keys, 1 to 3650.
    #[arg(long, env = "DEADBEAT_REVOKED_KEY_DAYS", default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub revoked_key_days: u16,
}

impl RetentionConfig {
    /// Converts the settings for the retention loop.
    #[must_use]
    pub fn settings(&self) -> RetentionSettings {
        RetentionSettings {
            ping_days: self.ping_days,
            ping_body_days: self.ping_body_days,
            pings_per_monitor: self.pings_per_monitor,
            run_days: self.run_days,
            trace_days: self.trace_days,
            incident_days: self.incident_days,
            transition_days: self.transition_days,
            change_days: self.change_days,
            audit_days: self.audit_days,
            delivery_days: self.delivery_days,
            attempt_days: self.attempt_days,
            blind_spell_days: self.blind_spell_days,
            worker_days: self.worker_days,
            queue_days: self.queue_days,
            broker_days: self.broker_days,
            revoked_key_days: self.revoked_key_days,
        }
    }
}

/// A part of the server that a process may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Serves pings, the API and the pages.
    Http,
    /// Judges missed deadlines, and removes data that are too old.
    Evaluator,
    /// Sends alerts.
    Delivery,
    /// All of them.
    All,
}

/// A setting that contains a password. It prints as `…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// A checked URL of the server, without a slash at the end; empty if not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteUrl(pub(crate) String);

/// Returns the setting unless it is empty. Compose files say "not set" by an empty variable.
fn set(secret: Option<&Secret>) -> Option<&str> {
    secret
        .map(|secret| secret.0.as_str())
        .filter(|text| !text.is_empty())
}

impl ZoneConfig {
    /// Returns the folder of the machine's time zones, unless the setting is empty.
    #[must_use]
    pub fn zoneinfo(&self) -> Option<&Path> {
        Some(Path::new(&self.zoneinfo)).filter(|folder| !folder.as_os_str().is_empty())
    }
}

impl DatabaseConfig {
    /// Returns the URL of the PostgreSQL to use instead of the embedded one.
    #[must_use]
    pub fn database_url(&self) -> Option<&str> {
        set(self.database_url.as_ref())
    }

    /// Returns the folder of PostgreSQL's programs, if it is set.
    #[must_use]
    pub fn postgres_bin(&self) -> Option<&Path> {
        self.postgres_bin
            .as_deref()
            .filter(|folder| !folder.is_empty())
            .map(Path::new)
    }
}

impl ServeConfig {
    /// Returns the URL under which clients reach the server, without a slash at the end.
    #[must_use]
    pub fn site_url(&self, listening: SocketAddr) -> String {
        match &self.site_url {
            Some(SiteUrl(url)) if !url.is_empty() => url.clone(),
            // Nobody can open the address that stands for every interface.
            _ if listening.ip().is_unspecified() => format!("http://localhost:{}", listening.port()),
            _ => format!("http://{listening}"),
        }
    }

    /// Returns the ping URL at another monitoring service, if it is set.
    #[must_use]
    pub fn watchdog_url(&self) -> Option<&str> {
        set(self.watchdog_url.as_ref())
    }

    /// Returns the URL of the mail server, if it is set.
    #[must_use]
    pub fn smtp_url(&self) -> Option<&str> {
        set(self.smtp_url.as_ref())
    }
}

/// Reads the URL under which clients reach the server, without a slash at the end. An empty text: none.
///
/// # Errors
/// What is allowed, for the person at the terminal.
pub fn site_url(text: &str) -> Result<SiteUrl, String> {
    if text.is_empty() {
        return Ok(SiteUrl(String::new()));
    }
    let allowed = "an http:// or https:// address is allowed, such as https://deadbeat.example.org";
    let url = Url::parse(text).map_err(|error| format!("{error}; {allowed}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
        return Err(allowed.to_owned());
    }
    Ok(SiteUrl(text.trim_end_matches('/').to_owned()))
}

/// Ports that the operator allows for webhooks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(pub Vec<u16>);

fn ports(text: &str) -> Result<Ports, String> {
    let allowed = "ports from 1 to 65535 with commas between are allowed, such as 81,88";
    text.split(',')
        .map(str::trim)
        .filter(|port| !port.is_empty())
        .map(|port| port.parse().ok().filter(|port| *port > 0))
        .collect::<Option<Vec<u16>>>()
        .map(Ports)
        .ok_or_else(|| allowed.to_owned())
}

/// Parses a switch that is on by default: an empty variable means "not set".
fn one_unless_zero(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(true),
        text => zero_or_one(text),
    }
}

fn zero_or_one(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" | "" => Ok(false),
        _ => Err("0 or 1 is allowed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_leaves_confirmation_on_and_allows_no_port() {
        assert_eq!(
            ["", "1", "0"].map(one_unless_zero),
            [Ok(true), Ok(true), Ok(false)]
        );
        assert_eq!(ports(""), Ok(Ports::default()));
        assert_eq!(ports("25, 81"), Ok(Ports(vec![25, 81])));
        for wrong in ["0", "65536", "-1", "http", "25;81"] {
            assert!(ports(wrong).is_err(), "{wrong}");
        }
    }
}
