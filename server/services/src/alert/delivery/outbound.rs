//! The only HTTP client that connects to addresses outside of this process.
//!
//! The people who write webhook addresses must not reach everything that this server can reach: its own ports, its
//! neighbours, a cloud's metadata service. So the guard judges every address before a connection is made, and the
//! connection goes to the judged address. Names are resolved here, and only allowed addresses are passed on: no second
//! lookup can return another address (DNS rebinding). Addresses written as numbers never reach a resolver, so they are
//! judged from the URL. The client follows no redirects and uses no proxy of the environment: both would connect to an
//! address that nobody judged.
//!
//! Ports below 1024 other than 80 and 443 are refused. Mail servers, databases and shells listen there, and their
//! answers would tell an attacker which of them exist.
//!
//! A timeout limits each attempt, and the client reads a limited number of bytes of an answer.

mod recorder;

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use deadbeat_domain::alert::delivery::Reason;
use reqwest::Method;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use url::{Host, Url};

pub use recorder::Recorder;

/// Limit for a whole attempt: resolving, connecting, sending, and reading the answer.
const TOTAL: Duration = Duration::from_secs(10);
/// Limit for resolving, connecting and the TLS handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// The most bytes that are read of an answer.
const ANSWER_BYTES: usize = 16 * 1024;

/// The operator's settings.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// `DEADBEAT_ALLOW_PRIVATE_NETWORKS`: webhooks may go to this machine and its neighbours.
    pub allow_private_networks: bool,
    /// Connections go only to this machine, whatever address a channel has: for tests of kinds with vendors'
    /// addresses.
    pub loopback_only: bool,
    /// `DEADBEAT_WEBHOOK_PORTS`: ports below 1024 that webhooks may use beside 80 and 443.
    pub ports: Vec<u16>,
    /// The `User-Agent`, such as `Deadbeat/1.0`.
    pub user_agent: String,
}

/// Posts to addresses that other people control. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbound {
    transport: Transport,
    guard: Guard,
    ports: Arc<[u16]>,
}

#[derive(Debug, Clone)]
enum Transport {
    Network(reqwest::Client),
    Recorder(Recorder),
}

/// The receiver's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The header `Retry-After`, unchanged.
    pub retry_after: Option<String>,
    /// The beginning of the body, 16 KiB at most. Empty if the status is a success and [`Call::reads_success`] is not set.
    pub body: Vec<u8>,
}

/// The reason why a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OutboundError {
    /// The URL cannot be read.
    #[error("{0}")]
    Url(String),
    /// The address must not be connected to.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The port must not be connected to.
    #[error(
        "port {0} is not allowed: 80, 443 and ports from 1024 on are; the operator can allow others with DEADBEAT_WEBHOOK_PORTS"
    )]
    Port(u16),
    /// No connection, or no answer, within the limit.
    #[error("{0}")]
    Timeout(String),
    /// The TLS handshake failed.
    #[error("{0}")]
    Tls(String),
    /// The name has no address, or the connection was refused or broke off.
    #[error("{0}")]
    Connection(String),
}

impl OutboundError {
    /// Returns the reason that the attempt records.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Url(_) => Reason::Setup,
            Self::Forbidden(_) | Self::Port(_) => Reason::RefusedAddress,
            Self::Timeout(_) => Reason::Timeout,
            Self::Tls(_) => Reason::Tls,
            Self::Connection(_) => Reason::Connection,
        }
    }

    /// True if no later attempt can succeed with the same settings.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Url(_) | Self::Forbidden(_) | Self::Port(_))
    }
}

/// A request to an address that other people control.
#[derive(Clone)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// The URL. It may hold a secret.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// True if the caller needs the body of a success, which is read up to the limit of [`Answer::body`]. If false,
    /// the body of a success is not read, so that a body without an end causes no failure.
    pub reads_success: bool,
}

/// A host without any address that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub struct Forbidden {
    /// The host as the URL spells it.
    pub host: String,
    /// The setting `DEADBEAT_ALLOW_PRIVATE_NETWORKS` would allow it.
    pub is_private: bool,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_private {
            write!(
                f,
                "{} is an address of this machine or a private network; the operator can allow those with \
                 DEADBEAT_ALLOW_PRIVATE_NETWORKS=1",
                self.host
            )
        } else {
            write!(
                f,
                "{} is not an address on the internet: it is reserved, link-local or multicast",
                self.host
            )
        }
    }
}

impl Outbound {
    /// Makes a client that trusts the system's certificates. If the system has none (a minimal container), it trusts
    /// Mozilla's.
    ///
    /// # Errors
    /// If the TLS set-up or the user agent is refused.
    pub fn new(settings: &OutboundSettings) -> Result<Self, reqwest::Error> {
        let guard = Guard {
            allow_private: settings.allow_private_networks,
            loopback_only: settings.loopback_only,
        };
        let ports: Arc<[u16]> = settings.ports.as_slice().into();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls())
            .dns_resolver(Arc::new(guard))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(TOTAL)
            .connect_timeout(CONNECT)
            // Alerts are rare. A kept connection that the receiver has closed meanwhile costs an attempt.
            .pool_max_idle_per_host(0)
            .user_agent(&settings.user_agent)
            .build()?;
        let transport = Transport::Network(client);
        Ok(Self {
            transport,
            guard,
            ports,
        })
    }

    /// Makes a client that sends nothing and keeps each request, whatever its address.
    #[must_use]
    pub fn recording(recorder: Recorder) -> Self {
        Self {
            transport: Transport::Recorder(recorder),
            guard: Guard {
                allow_private: false,
                loopback_only: true,
            },
            ports: Arc::new([]),
        }
    }

    /// Reads a URL, and refuses one that can never be posted to. Does not resolve names: their addresses are judged
    /// when an attempt connects.
    ///
    /// # Errors
    /// If the URL cannot be read, or its address or port must not be connected to.
    pub fn check(&self, url: &str) -> Result<Url, OutboundError> {
        let url = Url::parse(url)
            .map_err(|error| OutboundError::Url(format!("the URL cannot be read: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(OutboundError::Url(format!(
                "the URL begins with {}; http or https is allowed",
                url.scheme()
            )));
        }
        self.guard.check_literal(&url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        // If webhooks may reach every machine of a private network, they may also reach every port there.
        let is_allowed = matches!(port, 80 | 443 | 1024..)
            || port != 0 && (self.guard.allow_private || self.ports.contains(&port));
        if is_allowed {
            Ok(url)
        } else {
            Err(OutboundError::Port(port))
        }
    }

    /// Posts a body once, and does not read the body of a success.
    ///
    /// # Errors
    /// See [`Self::send`].
    pub async fn post(&self, url: &str, headers: HeaderMap, body: Vec<u8>) -> Result<Answer, OutboundError> {
        let call = Call {
            method: Method::POST,
            url: url.to_owned(),
            headers,
            body,
            reads_success: false,
        };
        self.send(call).await
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// If no answer came, or the address must not be connected to. The texts never contain the URL: its path may be a
    /// secret.
    pub async fn send(&self, call: Call) -> Result<Answer, OutboundError> {
        let client = match &self.transport {
            Transport::Network(client) => client,
            Transport::Recorder(recorder) => return Ok(recorder.keep(call)),
        };
        let url = self.check(&call.url)?;
        let host = url.host_str().unwrap_or_default().to_owned();

        let request = client
            .request(call.method, url)
            .headers(call.headers)
            .body(call.body);
        let mut response = request.send().await.map_err(|error| explain(&error, &host))?;
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
            body: Vec::new(),
        };
        let is_read = call.reads_success || !response.status().is_success();
        while is_read && answer.body.len() < ANSWER_BYTES {
            // The status decides. If the body breaks off, keep the bytes that came.
            let Ok(Some(chunk)) = response.chunk().await else {
                break;
            };
            let room = ANSWER_BYTES - answer.body.len();
            answer.body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        }
        Ok(answer)
    }
}

/// TLS with a provider of its own, so that nothing depends on the process's default one.
fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    // Certificate files that cannot be read count as absent. A handshake that needs them reports that.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Explains to people why no answer came.
fn explain(error: &reqwest::Error, host: &str) -> OutboundError {
    let mut deepest: &(dyn StdError + 'static) = error;
    let mut is_tls = false;
    loop {
        is_tls |= is_of_tls(deepest);
        if let Some(forbidden) = deepest.downcast_ref::<Forbidden>() {
            return forbidden.clone().into();
        }
        match deepest.source() {
            Some(source) => deepest = source,
            None => break,
        }
    }
    match (error.is_timeout(), error.is_connect()) {
        (true, true) => {
            OutboundError::Timeout(format!("no connection to {host} within {} s", CONNECT.as_secs()))
        }
        (true, false) => {
            OutboundError::Timeout(format!("no answer from {host} within {} s", TOTAL.as_secs()))
        }
        (false, _) if is_tls => OutboundError::Tls(format!("no TLS connection to {host}: {deepest}")),
        (false, true) => OutboundError::Connection(format!("could not connect to {host}: {deepest}")),
        (false, false) => OutboundError::Connection(format!("no answer from {host}: {deepest}")),
    }
}

/// True if an error comes from TLS. `std::io::Error` does not show the error inside it as its `source`, and may be
/// nested.
fn is_of_tls(error: &(dyn StdError + 'static)) -> bool {
    let inner = error
        .downcast_ref::<std::io::Error>()
        .and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || inner.is_some_and(|inner| is_of_tls(inner))
}

/// Decides which addresses may be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Guard {
    allow_private: bool,
    /// See [`OutboundSettings::loopback_only`].
    loopback_only: bool,
}

impl Guard {
    fn allows(self, ip: IpAddr) -> bool {
        if self.loopback_only {
            return ip.is_loopback();
        }
        match reach(ip) {
            Reach::Public => true,
            Reach::Private => self.allow_private,
            Reach::Nowhere => false,
        }
    }

    /// Judges an address that is written as a number, which never reaches the resolver. `Url` has turned odd spellings
    /// (`127.1`, `0x7f000001`, `0177.0.0.1`, full-width digits) into the plain one by then. `localhost` counts as such an address
    /// (RFC 6761).
    fn check_literal(self, url: &Url) -> Result<(), Forbidden> {
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                if self.allow_private || name != "localhost" && !name.ends_with(".localhost") {
                    return Ok(());
                }
                return Err(Forbidden {
                    host: name.to_owned(),
                    is_private: true,
                });
            }
            None => return Ok(()),
        };
        if self.allows(ip) {
            return Ok(());
        }
        Err(Forbidden {
            host: ip.to_string(),
            is_private: reach(ip) == Reach::Private,
        })
    }

    /// Returns those of a name's addresses that may be connected to.
    fn keep(
        self,
        host: &str,
        found: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, Box<dyn StdError + Send + Sync>> {
        let allowed: Vec<SocketAddr> = found
            .iter()
            .copied()
            .filter(|address| self.allows(address.ip()))
            .collect();
        if found.is_empty() {
            return Err(format!("{host} has no address").into());
        }
        if allowed.is_empty() {
            let is_private = found.iter().any(|address| reach(address.ip()) == Reach::Private);
            return Err(Box::new(Forbidden {
                host: host.to_owned(),
                is_private,
            }));
        }
        Ok(allowed)
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let host = name.as_str();
            if guard.loopback_only && host != "localhost" {
                return Err(format!("{host} is not this machine").into());
            }
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            let allowed = guard.keep(host, &found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The network that an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The internet.
    Public,
    /// This machine, or its neighbours.
    Private,
    /// No place for an alert. Includes link-local, where clouds have their metadata services.
    Nowhere,
}

/// The network that an address leads to, by IANA's special-purpose registries (RFC 6890 and its updates).
fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        // Clouds' metadata services inside shared or protocol space: never allowed, whatever the settings.
        [100, 100, 100, 200] | [168, 63, 129, 16] => Reach::Nowhere,
        // Loopback, RFC 1918, shared (carrier NAT), benchmarking: all used inside networks.
        [127 | 10, ..] | [192, 168, ..] | [198, 18..=19, ..] => Reach::Private,
        [172, 16..=31, ..] | [100, 64..=127, ..] => Reach::Private,
        // This network, link-local, protocol assignments, documentation, 6to4 relays, multicast, reserved and broadcast.
        [0, ..] | [169, 254, ..] | [192, 0, 0, _] | [224..=255, ..] => Reach::Nowhere,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] => Reach::Nowhere,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach_v4(Ipv4Addr::new(a, b, c, d))
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // IPv4-mapped, and NAT64 (RFC 6052): the IPv4 address inside decides.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // NAT64 of a network's own choosing (RFC 8215).
        [0x64, 0xff9b, 1, ..] => Reach::Private,
        // 6to4.
        [0x2002, high, low, ..] => embedded(high, low),
        // A cloud's metadata service, inside unique-local space.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Reach::Nowhere,
        // Unique-local, and site-local as it was before.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Reach::Private,
        // Protocol assignments, Teredo and ORCHID among them; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Nowhere,
        // Global unicast is 2000::/3. All else is unassigned, link-local, multicast, or unspecified.
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Nowhere,
    }
}

#[cfg(test)]
mod tests;
