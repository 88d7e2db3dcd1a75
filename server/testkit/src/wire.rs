//! A proxy in front of PostgreSQL that speaks its protocol, counts statements, and breaks one of them.

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
    /// The connection is cut before the server sees the statement.
    LostBefore,
    /// The server executes the statement, and the connection is cut before its answer arrives.
    LostAfter,
    /// The client is cut off, and the server receives the statement a while later.
    Late,
    /// The server says that the statement timed out (57014); it does not happen.
    TimedOut,
}

impl Fault {
    /// All.
    pub const ALL: [Self; 4] = [Self::LostBefore, Self::LostAfter, Self::Late, Self::TimedOut];

    /// Its name in reports.
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

/// How long a late statement is on its way: longer than a client waits before it connects again.
const LATE: Duration = Duration::from_millis(600);

/// Where the server is.
#[derive(Debug, Clone)]
pub enum Server {
    /// A Unix socket.
    Socket(PathBuf),
    /// A host and a port.
    Port(String, u16),
}

/// The proxy. It ends when dropped, with all its connections.
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
    /// A proxy that breaks the statement of that number (from 1 on, counted over all connections), or none. `BEGIN` and `COMMIT` are
    /// statements; that a statement is prepared before it is executed does not count.
    ///
    /// # Panics
    /// The machine has no free port.
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
                    // A client or a server that hangs up ends its connection.
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

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Statements so far.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.plan.statements.load(Ordering::SeqCst)
    }

    /// Whether the statement came that was to break.
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
    // The start of a session has no type.
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
                // A transaction that was begun has failed as far as the client knows.
                let state = if state == b'I' { b'I' } else { b'E' };
                client.write_all(&[b'Z', 0, 0, 0, 5, state]).await?;
            }
        }
    }
}

/// What a client sends until it waits for an answer.
struct Trip {
    bytes: Vec<u8>,
    /// It executes a statement; otherwise it prepares or closes one.
    executes: bool,
}

/// The next trip of a client. None: it has ended the session.
async fn trip(client: &mut TcpStream) -> Result<Option<Trip>> {
    let mut bytes = Vec::new();
    let mut executes = false;
    loop {
        let kind = match client.read_u8().await {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        message(client, kind, &mut bytes).await?;
        // Execute, and a simple query.
        executes |= matches!(kind, b'E' | b'Q');
        match kind {
            b'X' => return Ok(None),
            // Sync, and a simple query.
            b'S' | b'Q' => return Ok(Some(Trip { bytes, executes })),
            _ => {}
        }
    }
}

/// Passes the server's answer on until it is ready for the next statement; how its transaction stands then.
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
