//! A real SMTP server on this machine. It follows a test's script and keeps the mails that it receives.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A mail that the server received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// The message as received, without the dots of the transfer; lines end in `\r\n`.
    pub message: String,
}

impl Mail {
    /// Returns a header of the mail, unfolded.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.message, name)
    }

    /// Returns the first part of a type such as `text/plain`, decoded.
    #[must_use]
    pub fn part(&self, media_type: &str) -> Option<String> {
        let boundary = self
            .header("Content-Type")?
            .split("boundary=")
            .nth(1)?
            .trim_matches('"')
            .to_owned();
        self.message
            .split(&format!("--{boundary}"))
            .skip(1)
            .find_map(|part| {
                let part = part.trim_start_matches("\r\n");
                if !header(part, "Content-Type")?.starts_with(media_type) {
                    return None;
                }
                let (_, body) = part.split_once("\r\n\r\n")?;
                Some(match header(part, "Content-Transfer-Encoding").as_deref() {
                    Some("quoted-printable") => from_quoted_printable(body),
                    _ => body.replace("\r\n", "\n"),
                })
            })
    }
}

/// The step of a transfer that the server refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// The message after `DATA`.
    Message,
}

#[derive(Debug, Default)]
struct State {
    mails: Vec<Mail>,
    refusals: VecDeque<(Step, String)>,
    connections: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts the received mails.
    taken: watch::Sender<usize>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next refusal of the script if it is for this step.
    fn refusal(&self, step: Step) -> Option<String> {
        let mut state = self.state();
        state
            .refusals
            .pop_front_if(|(at, _)| *at == step)
            .map(|(_, answer)| answer)
    }
}

/// A running server. It ends when dropped.
#[derive(Debug)]
pub struct Inbox {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

impl Inbox {
    /// Starts a server on a free port. It accepts every mail, except for the refusals of [`Inbox::refuse`].
    ///
    /// # Panics
    /// If this machine has no free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("this machine has a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            taken: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Returns the server's URL in the form of `DEADBEAT_SMTP_URL`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Refuses this step once, with an answer such as `550 5.1.1 no such user`. Several refusals are used in their order.
    pub fn refuse(&self, step: Step, answer: &str) -> &Self {
        self.shared.state().refusals.push_back((step, answer.to_owned()));
        self
    }

    /// Returns every received mail.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.shared.state().mails.clone()
    }

    /// Returns the number of connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.state().connections
    }

    /// Waits until the server has received this many mails, and returns all received mails.
    ///
    /// # Panics
    /// If they do not arrive within the limit.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> Vec<Mail> {
        let mut taken = self.shared.taken.subscribe();
        let waited = tokio::time::timeout(limit, taken.wait_for(|taken| *taken >= count))
            .await
            .is_ok();
        let mails = self.mails();
        assert!(waited, "{} mails came within {limit:?}, not {count}", mails.len());
        mails
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
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
    let (mut from, mut to) = (String::new(), Vec::new());
    say(&mut stream, "220 inbox.test ESMTP").await?;
    while let Some(line) = read_line(&mut stream).await? {
        let verb = line
            .split([' ', ':'])
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-inbox.test\r\n250-8BITMIME\r\n250 SMTPUTF8".to_owned(),
            "MAIL" => match shared.refusal(Step::Sender) {
                Some(refusal) => refusal,
                None => {
                    (from, to) = (path(&line), Vec::new());
                    "250 2.1.0 ok".to_owned()
                }
            },
            "RCPT" => match shared.refusal(Step::Recipient) {
                Some(refusal) => refusal,
                None => {
                    to.push(path(&line));
                    "250 2.1.5 ok".to_owned()
                }
            },
            "DATA" if to.is_empty() => "503 5.5.1 no recipient".to_owned(),
            "DATA" => {
                say(&mut stream, "354 go on").await?;
                let message = read_message(&mut stream).await?;
                match shared.refusal(Step::Message) {
                    Some(refusal) => refusal,
                    None => {
                        shared.state().mails.push(Mail {
                            from: from.clone(),
                            to: std::mem::take(&mut to),
                            message,
                        });
                        shared.taken.send_modify(|taken| *taken += 1);
                        "250 2.0.0 taken".to_owned()
                    }
                }
            }
            "HELO" | "RSET" | "NOOP" => "250 ok".to_owned(),
            "QUIT" => {
                say(&mut stream, "221 bye").await?;
                return Ok(());
            }
            _ => "502 5.5.1 not known".to_owned(),
        };
        say(&mut stream, &answer).await?;
    }
    Ok(())
}

async fn say(stream: &mut BufReader<TcpStream>, answer: &str) -> io::Result<()> {
    stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    stream.flush().await
}

/// Returns `None` if the client closed the connection.
async fn read_line(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let read = stream.read_until(b'\n', &mut line).await?;
    Ok((read > 0).then(|| {
        String::from_utf8_lossy(&line)
            .trim_end_matches(['\r', '\n'])
            .to_owned()
    }))
}

async fn read_message(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut message = String::new();
    while let Some(line) = read_line(stream).await? {
        if line == "." {
            return Ok(message);
        }
        message.push_str(line.strip_prefix('.').unwrap_or(&line));
        message.push_str("\r\n");
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// Returns the text between `<` and `>`.
fn path(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map(|(path, _)| path.to_owned())
        .unwrap_or_default()
}

fn header(message: &str, name: &str) -> Option<String> {
    let (head, _) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    unfolded.split("\r\n").find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

fn from_quoted_printable(body: &str) -> String {
    let mut out = Vec::new();
    let joined = body.replace("=\r\n", "").replace("\r\n", "\n");
    let mut rest = joined.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .filter(|_| *first == b'=')
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
