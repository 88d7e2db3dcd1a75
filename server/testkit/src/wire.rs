//! A proxy in front of PostgreSQL. It speaks PostgreSQL's protocol, counts statements, and breaks one of them.

use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

/// How a statement breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The proxy cuts the connection before the server gets the statement.
    LostBefore,
    /// The server executes the statement, but the proxy cuts the connection before the client gets the answer.
    LostAfter,
    /// The proxy cuts the client off, and the server gets the statement a while later.
    Late,
    /// The client gets the error that the statement timed out (57014). The server does not get the statement.
    TimedOut,
}

impl Fault {
    /// All kinds of faults.
    pub const ALL: [Self; 4] = [Self::LostBefore, Self::LostAfter, Self::Late, Self::TimedOut];

    /// Returns the name of the fault in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LostBefore => "lost before",
            Self::LostAfter => "lost after",
            Self::Late => "late",
            Self::TimedOut => "timed out",
        }
    }
}

/// How late a late statement arrives: later than a client's reconnection.
const LATE: Duration = Duration::from_millis(600);

/// Where the PostgreSQL server listens.
#[derive(Debug, Clone)]
pub enum Server {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host and a port.
    Port(String, u16),
}

/// A running proxy. It and all its connections end when dropped.
#[derive(Debug)]
pub struct Wire {
    port: u16,
    plan: Arc<Plan>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Plan {
    fault: Option<(usize, Fault)>,
    statements: AtomicUsize,
    was_hit: AtomicBool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Wire {
    /// Starts a proxy that breaks the statement with this number, or none. Numbers begin at 1 and count the statements of all connections. `BEGIN`
    /// and `COMMIT` are statements; preparing a statement does not count.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub async fn before(server: Server, fault: Option<(usize, Fault)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let plan = Arc::new(Plan {
            fault,
            statements: AtomicUsize::new(0),
            was_hit: AtomicBool::new(false),
        });
        let shared = Arc::clone(&plan);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (server, plan) = (server.clone(), Arc::clone(&shared));
                connections.spawn(async move {
                    // If the client or the server disconnects, the relay between them ends.
                    let _ = relay(client, server, &plan).await;
                });
            }
        });
        Self {
            port,
            plan,
            accepting,
        }
    }

    /// Returns the port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of statements so far.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.plan.statements.load(Ordering::SeqCst)
    }

    /// Returns true if the proxy has broken the chosen statement.
    #[must_use]
    pub fn was_hit(&self) -> bool {
        self.plan.was_hit.load(Ordering::SeqCst)
    }
}

async fn relay(client: TcpStream, server: Server, plan: &Plan) -> Result<()> {
    client.set_nodelay(true)?;
    match server {
        Server::Socket(path) => talk(client, UnixStream::connect(path).await?, plan).await,
        Server::Port(host, port) => talk(client, TcpStream::connect((host, port)).await?, plan).await,
    }
}

async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: TcpStream,
    mut server: S,
    plan: &Plan,
) -> Result<()> {
    // The first message of a session has no type.
    let length = client.read_u32().await?;
    let mut start = length.to_be_bytes().to_vec();
    read_rest(&mut client, length, &mut start).await?;
    server.write_all(&start).await?;
    let mut state = answer(&mut server, Some(&mut client)).await?;
    loop {
        let Some(trip) = trip(&mut client).await? else {
            return Ok(());
        };
        let number = if trip.executes {
            plan.statements.fetch_add(1, Ordering::SeqCst) + 1
        } else {
            0
        };
        let fault = plan.fault.filter(|(at, _)| *at == number);
        let fault = fault.map(|(_, fault)| fault);
        if fault.is_some() {
            plan.was_hit.store(true, Ordering::SeqCst);
        }
        match fault {
            None => {
                server.write_all(&trip.bytes).await?;
                state = answer(&mut server, Some(&mut client)).await?;
            }
            Some(Fault::LostBefore) => return Ok(()),
            Some(Fault::LostAfter) => {
                server.write_all(&trip.bytes).await?;
                answer(&mut server, None).await?;
                return Ok(());
            }
            Some(Fault::Late) => {
                drop(client);
                tokio::time::sleep(LATE).await;
                server.write_all(&trip.bytes).await?;
                answer(&mut server, None).await?;
                return Ok(());
            }
            Some(Fault::TimedOut) => {
                let fields = b"SERROR\0VERROR\0C57014\0Mcanceling statement due to statement timeout\0\0";
                let length = u32::try_from(fields.len() + 4).map_err(Error::other)?;
                client.write_u8(b'E').await?;
                client.write_u32(length).await?;
                client.write_all(fields).await?;
                // As far as the client knows, an open transaction has now failed.
                let state = if state == b'I' { b'I' } else { b'E' };
                client.write_all(&[b'Z', 0, 0, 0, 5, state]).await?;
            }
        }
    }
}

/// The messages that a client sends before it waits for an answer.
struct Trip {
    bytes: Vec<u8>,
    /// True if the messages execute a statement. False if they only prepare or close one.
    executes: bool,
}

/// Reads the next messages of a client. Returns `None` if the client has ended the session.
async fn trip(client: &mut TcpStream) -> Result<Option<Trip>> {
    let mut bytes = Vec::new();
    let mut executes = false;
    loop {
        let kind = match client.read_u8().await {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        message(client, kind, &mut bytes).await?;
        // The types of Execute and of a simple query.
        executes |= matches!(kind, b'E' | b'Q');
        match kind {
            b'X' => return Ok(None),
            // The types of Sync and of a simple query.
            b'S' | b'Q' => return Ok(Some(Trip { bytes, executes })),
            _ => {}
        }
    }
}

/// Forwards the server's answer until the server is ready for the next statement. Returns the state of its transaction.
async fn answer<S: AsyncRead + Unpin>(server: &mut S, mut client: Option<&mut TcpStream>) -> Result<u8> {
    loop {
        let kind = server.read_u8().await?;
        let mut passed = Vec::new();
        message(server, kind, &mut passed).await?;
        if let Some(client) = client.as_mut() {
            client.write_all(&passed).await?;
        }
        if kind == b'Z' {
            return passed.last().copied().ok_or_else(|| Error::other("no state"));
        }
    }
}

async fn message<R: AsyncRead + Unpin>(from: &mut R, kind: u8, into: &mut Vec<u8>) -> Result<()> {
    into.push(kind);
    let length = from.read_u32().await?;
    into.extend(length.to_be_bytes());
    read_rest(from, length, into).await
}

async fn read_rest<R: AsyncRead + Unpin>(from: &mut R, length: u32, into: &mut Vec<u8>) -> Result<()> {
    let rest = u64::from(length.saturating_sub(4));
    let before = into.len() as u64;
    from.take(rest).read_to_end(into).await?;
    if into.len() as u64 - before < rest {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}
