//! A TCP stream with deadlines: a request must arrive completely in time, and the client must receive each answer in
//! time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Slot;
use super::head::RequestReader;

/// How long a client may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a request may take to arrive, from its first byte. Also how long the client may take to receive an answer, from the first write for
    /// which the server must wait.
    pub base: Duration,
    /// Each time this many bytes were sent or received, the deadline moves by one second. A slow client that transfers much is therefore not cut off.
    pub bytes_per_second: u32,
}

/// A deadline that moves with each byte. Most requests arrive in one piece, so the timer is created only for the others.
#[derive(Debug, Default)]
struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    fn start(&mut self, patience: &Patience) {
        if self.at.is_none() {
            self.at = Some(Instant::now() + patience.base);
        }
    }

    fn prolong(&mut self, patience: &Patience, bytes: usize) {
        if let Some(at) = &mut self.at {
            *at +=
                Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / patience.bytes_per_second;
        }
    }

    fn stop(&mut self) {
        self.at = None;
    }

    /// Returns `Ready` once the deadline has passed. Otherwise the task is woken at the deadline.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx)
    }
}

/// A connection that the server cuts off if the client is too slow. Generic, so that a test can use a pipe.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    patience: Patience,
    reader: RequestReader,
    request: Deadline,
    answer: Deadline,
    _slot: Slot,
}

impl<T> Guarded<T> {
    pub(super) fn new(io: T, patience: Patience, slot: Slot) -> Self {
        Self {
            io,
            patience,
            reader: RequestReader::default(),
            request: Deadline::default(),
            answer: Deadline::default(),
            _slot: slot,
        }
    }
}

fn too_slow(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if Pin::new(&mut this.io).poll_read(cx, buf)?.is_pending() {
            ready!(this.request.poll(cx));
            return Poll::Ready(Err(too_slow("the request did not arrive completely in time")));
        }
        let new = &mut buf.filled_mut()[before..];
        if let Some(at) = this.reader.read(new) {
            // The parser accepts a bare line feed, but not a NUL. With a NUL in place of the line feed, the parser answers 400 and closes the
            // connection.
            new[at] = 0;
        }
        if this.reader.is_within_request() {
            this.request.start(&this.patience);
            this.request.prolong(&this.patience, new.len());
        } else {
            this.request.stop();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(written) = Pin::new(&mut this.io).poll_write(cx, bytes) {
            if let Ok(written) = written {
                this.answer.prolong(&this.patience, written);
            }
            return Poll::Ready(written);
        }
        this.answer.start(&this.patience);
        ready!(this.answer.poll(cx));
        Poll::Ready(Err(too_slow("the client did not receive the answer in time")))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // The dispatcher flushes once it has written all its data, so the answer is complete.
        this.answer.stop();
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Cuts a client off soon, and each byte moves the deadline a little.
    const HASTY: Patience = Patience {
        base: Duration::from_millis(50),
        bytes_per_second: 1_000_000,
    };
    /// Cuts a client off soon, but each byte moves the deadline by a second.
    const BY_BYTES: Patience = Patience {
        bytes_per_second: 1,
        ..HASTY
    };

    fn guarded(patience: Patience) -> (Guarded<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(1_000);
        (Guarded::new(ours, patience, Slot::default()), theirs)
    }

    /// Reads until it fails.
    async fn failure(ours: &mut Guarded<DuplexStream>) -> io::ErrorKind {
        let mut buffer = [0; 1_000];
        loop {
            match ours.read(&mut buffer).await {
                Ok(0) => panic!("closed by the client"),
                Ok(_) => {}
                Err(error) => return error.kind(),
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_whole_is_cut_wherever_it_stops() {
        for first in [
            &b"GET / HT"[..],
            b"\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nx",
            b"GET / HTTP/1.1\r\n\r\nGET / HT",
        ] {
            let (mut ours, mut theirs) = guarded(HASTY);
            theirs.write_all(first).await.unwrap();
            assert_eq!(
                failure(&mut ours).await,
                io::ErrorKind::TimedOut,
                "{}",
                String::from_utf8_lossy(first)
            );
        }
    }

    #[tokio::test]
    async fn a_request_that_drips_is_cut_too() {
        let (mut ours, mut theirs) = guarded(HASTY);
        let drip = tokio::spawn(async move {
            let _ = theirs
                .write_all(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
                .await;
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert_eq!(failure(&mut ours).await, io::ErrorKind::TimedOut);
        drop(ours);
        drip.await.unwrap();
    }

    #[tokio::test]
    async fn who_sends_enough_is_waited_for_and_so_is_who_sends_nothing_between_requests() {
        let (mut ours, mut theirs) = guarded(BY_BYTES);
        let mut buffer = [0; 1_000];
        theirs.write_all(b"GET / HT").await.unwrap();
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 8);
        let waits = tokio::time::timeout(3 * HASTY.base, ours.read(&mut buffer)).await;
        assert!(waits.is_err(), "eight bytes prolong it by eight seconds");

        let (mut ours, mut theirs) = guarded(HASTY);
        theirs.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 18);
        let idle = tokio::time::timeout(3 * HASTY.base, ours.read(&mut buffer)).await;
        assert!(
            idle.is_err(),
            "between requests the keep-alive decides, not this deadline"
        );
    }

    #[tokio::test]
    async fn an_answer_that_is_not_taken_is_cut_and_the_next_one_has_its_own_time() {
        let (mut ours, _theirs) = guarded(HASTY);
        let error = ours.write_all(&[b'x'; 5_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (mut ours, mut theirs) = guarded(HASTY);
        let mut taken = vec![0; 5_000];
        for _ in 0..3 {
            let answer = async {
                ours.write_all(&[b'x'; 5_000]).await.unwrap();
                ours.flush().await.unwrap();
            };
            let ((), read) = tokio::join!(answer, theirs.read_exact(&mut taken));
            read.unwrap();
            // Longer than a client may take. No request and no answer is under way, so the connection stays.
            tokio::time::sleep(2 * HASTY.base).await;
        }
    }
}
