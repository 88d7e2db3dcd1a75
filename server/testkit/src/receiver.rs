//! A real HTTP endpoint on this machine. It follows a test's script and keeps the requests that it receives.
//!
//! It uses plain TCP, because a script may hang, send half an answer, or close the connection. A server library would prevent that.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A request that the endpoint received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method, such as POST.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The headers in the order of their arrival, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
    /// When the request was complete.
    pub arrived: Instant,
}

impl Request {
    /// Returns a header's first value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The endpoint's answer to one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    repeats: bool,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Answers at once.
    Answer,
    /// Answers after [`Receiver::release`] is called.
    Held,
    /// Answers with the head and a part of the body. The rest of the answer waits for [`Receiver::release`].
    Stall,
    /// Closes the connection without an answer.
    Close,
}

impl Reply {
    /// Makes an answer with this status and an empty body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            repeats: false,
            end: End::Answer,
        }
    }

    /// Adds this header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Makes the body repeat the request: its path, its headers and its body. Real endpoints do that, and so reveal secrets.
    #[must_use]
    pub fn repeating(mut self) -> Self {
        self.repeats = true;
        self
    }

    /// Delays the answer until the test calls [`Receiver::release`].
    #[must_use]
    pub fn held(mut self) -> Self {
        self.end = End::Held;
        self
    }

    /// Sends the head and the body, with a length that promises more, and then nothing until [`Receiver::release`].
    #[must_use]
    pub fn stalled(mut self) -> Self {
        self.end = End::Stall;
        self
    }

    /// Closes the connection without an answer.
    #[must_use]
    pub fn close() -> Self {
        Self {
            end: End::Close,
            ..Self::status(0)
        }
    }
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    connections: usize,
    script: VecDeque<Reply>,
}

/// A running endpoint. It ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    otherwise: Reply,
    /// Counts the received requests.
    arrived: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Starts an endpoint on a free port. After its script has ended, it answers 200.
    ///
    /// # Panics
    /// If this machine has no free port.
    pub async fn start() -> Self {
        Self::answering(Reply::status(200)).await
    }

    /// Starts an endpoint that gives this answer after its script has ended.
    ///
    /// # Panics
    /// If this machine has no free port.
    pub async fn answering(otherwise: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("this machine has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            otherwise,
            arrived: watch::Sender::new(0),
            released: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Returns the endpoint's URL with this path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the address on which the endpoint listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds an answer to the script. The endpoint gives each answer once, in order.
    pub fn then(&self, reply: Reply) -> &Self {
        self.shared.state().script.push_back(reply);
        self
    }

    /// Releases all held and stalled answers, including later ones.
    pub fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// Returns all received requests.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.clone()
    }

    /// Returns the number of connections so far, including those without a request.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Waits until this many requests have arrived, and returns all received requests.
    ///
    /// # Panics
    /// If they do not arrive within the limit.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> Vec<Request> {
        let mut arrived = self.shared.arrived.subscribe();
        let waited = tokio::time::timeout(limit, arrived.wait_for(|arrived| *arrived >= count))
            .await
            .is_ok();
        let requests = self.requests();
        assert!(
            waited,
            "{} requests arrived within {limit:?}, not {count}",
            requests.len()
        );
        requests
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped together with this task, which ends all connections.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.state().connections += 1;
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            // A client may disconnect at any time. That ends the connection, not the test.
            let _ = serve(stream, &shared).await;
        });
    }
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        let mut reply = {
            let mut state = shared.state();
            state.requests.push(request.clone());
            state
                .script
                .pop_front()
                .unwrap_or_else(|| shared.otherwise.clone())
        };
        if reply.repeats {
            reply.body = repeated(&request).into_bytes();
        }
        shared.arrived.send_modify(|arrived| *arrived += 1);
        if reply.end == End::Close {
            return Ok(());
        }
        if reply.end == End::Held {
            released(shared).await;
        }
        let promised = reply.body.len() + usize::from(reply.end == End::Stall);
        let mut head = format!(
            "HTTP/1.1 {} Scripted\r\ncontent-length: {promised}\r\n",
            reply.status
        );
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.write_all(&reply.body).await?;
        stream.flush().await?;
        if reply.end == End::Stall {
            released(shared).await;
            return Ok(());
        }
    }
    Ok(())
}

fn repeated(request: &Request) -> String {
    let headers: String = request
        .headers
        .iter()
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    format!(
        "Cannot {} {}{headers} {}",
        request.method,
        request.path,
        request.text()
    )
}

async fn released(shared: &Shared) {
    // The sender lives as long as `shared`.
    let _ = shared.released.subscribe().wait_for(|released| *released).await;
}

/// Returns `None` if the client closed the connection.
async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request {
        method,
        path,
        headers,
        body,
        arrived: Instant::now(),
    }))
}
