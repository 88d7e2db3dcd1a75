//! Finds where requests begin and end in the bytes of a connection, and detects bare line feeds in heads.
//!
//! The HTTP parser reads a bare LF as the end of a header line. A proxy in front may read it as part of a header's value, and pass it on. Then the
//! two see different requests in the same bytes: request smuggling (RFC 9112, 2.2 and 11.2). The parser has no setting against that. This reader
//! therefore follows the requests ahead of the parser. It reads only what it needs: the lines of heads, and the two headers that determine a body's
//! length. The parser refuses every other fault of a request.

use memchr::memchr;

/// The reader keeps up to this many bytes of an unfinished head line. The parser refuses longer heads with 431.
const LINE_BYTES: usize = 160_000;

/// Follows the requests of one connection.
#[derive(Debug, Default)]
pub(super) struct RequestReader {
    at: At,
    /// The beginning of an unfinished head line.
    line: Vec<u8>,
    has_request_line: bool,
    content_length: u64,
    is_chunked: bool,
}

/// Where in a request the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// At the first byte of a request.
    #[default]
    Between,
    /// In a line of a head.
    Head,
    /// In a body with this many bytes left.
    Body(u64),
    /// In a chunked body.
    Chunk(Chunk),
    /// The parser refuses the previous bytes, or reads no more of this connection. The reader stops, too.
    Lost,
}

/// Where in a chunked body the next byte is (RFC 9112, 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size(u64),
    /// Extensions, up to the carriage return.
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the first byte of a line behind the last chunk.
    Trailer,
    InTrailer,
    TrailerLf,
    EndLf,
}

impl RequestReader {
    /// Returns true if a request has begun and is incomplete.
    pub(super) fn is_within_request(&self) -> bool {
        self.at != At::Between
    }

    /// Reads more bytes. Returns the place of a line feed that ends a head line without a carriage return before it, if there is one.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.at {
                At::Between => self.at = At::Head,
                At::Head => {
                    let Some(length) = memchr(b'\n', &bytes[at..]) else {
                        if self.line.len() + bytes.len() - at > LINE_BYTES {
                            self.at = At::Lost;
                        } else {
                            self.line.extend_from_slice(&bytes[at..]);
                        }
                        return None;
                    };
                    let piece = &bytes[at..at + length];
                    at += length;
                    let is_right = if self.line.is_empty() {
                        self.head_line(piece)
                    } else {
                        self.line.extend_from_slice(piece);
                        let line = std::mem::take(&mut self.line);
                        self.head_line(&line)
                    };
                    if !is_right {
                        self.at = At::Lost;
                        return Some(at);
                    }
                    at += 1;
                }
                At::Body(left) => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += here as usize;
                    self.at = if left == here {
                        At::Between
                    } else {
                        At::Body(left - here)
                    };
                }
                At::Chunk(Chunk::Data(left)) => {
                    let here = left.min((bytes.len() - at) as u64);
                    at += here as usize;
                    self.at = At::Chunk(if left == here {
                        Chunk::DataCr
                    } else {
                        Chunk::Data(left - here)
                    });
                }
                At::Chunk(chunk) => {
                    self.at = after(chunk, bytes[at]);
                    at += 1;
                }
                At::Lost => return None,
            }
        }
        None
    }

    /// Reads a line without its line feed. Returns false if the line does not end with a carriage return.
    fn head_line(&mut self, line: &[u8]) -> bool {
        let Some((b'\r', line)) = line.split_last() else {
            return false;
        };
        if !line.is_empty() {
            if self.has_request_line {
                self.header(line);
            }
            self.has_request_line = true;
        } else if self.has_request_line {
            self.at = match (self.is_chunked, self.content_length) {
                (true, _) => At::Chunk(Chunk::Size(0)),
                (false, 0) => At::Between,
                (false, length) => At::Body(length),
            };
            self.has_request_line = false;
            self.is_chunked = false;
            self.content_length = 0;
        }
        true
    }

    /// Reads the headers that determine a body's length. The parser refuses faulty ones: a length that is not a number, or both headers at once.
    fn header(&mut self, line: &[u8]) {
        // The first letter rules out most headers.
        match line[0] | 0x20 {
            b'c' => {
                if let Some(value) = value_of(line, b"content-length:") {
                    let digits = std::str::from_utf8(value).ok();
                    self.content_length = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
                }
            }
            b't' => {
                if let Some(value) = value_of(line, b"transfer-encoding:") {
                    self.is_chunked |= value.eq_ignore_ascii_case(b"chunked");
                }
            }
            _ => {}
        }
    }
}

fn value_of<'line>(line: &'line [u8], name: &[u8]) -> Option<&'line [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

/// Returns the place after one byte of a chunked body.
fn after(chunk: Chunk, byte: u8) -> At {
    At::Chunk(match (chunk, byte) {
        (Chunk::Size(size), b'\r') => Chunk::SizeLf(size),
        (Chunk::Size(size), b';' | b' ' | b'\t') => Chunk::Extension(size),
        (Chunk::Size(size), digit) => {
            let digit = (digit as char).to_digit(16);
            let longer = digit.and_then(|digit| size.checked_mul(16)?.checked_add(u64::from(digit)));
            match longer {
                Some(size) => Chunk::Size(size),
                None => return At::Lost,
            }
        }
        (Chunk::Extension(size), b'\r') => Chunk::SizeLf(size),
        (Chunk::Extension(size), _) => Chunk::Extension(size),
        (Chunk::SizeLf(0), b'\n') => Chunk::Trailer,
        (Chunk::SizeLf(size), b'\n') => Chunk::Data(size),
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size(0),
        (Chunk::Trailer, b'\r') => Chunk::EndLf,
        (Chunk::InTrailer, b'\r') => Chunk::TrailerLf,
        (Chunk::Trailer | Chunk::InTrailer, _) => Chunk::InTrailer,
        (Chunk::TrailerLf, b'\n') => Chunk::Trailer,
        (Chunk::EndLf, b'\n') => return At::Between,
        _ => return At::Lost,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a text to a reader in pieces of a size. Returns where the reader found the first bare line feed, and whether it ended between requests.
    fn read(text: &str, size: usize) -> (Option<usize>, bool) {
        let mut reader = RequestReader::default();
        for (n, piece) in text.as_bytes().chunks(size).enumerate() {
            if let Some(at) = reader.read(piece) {
                return (Some(n * size + at), false);
            }
        }
        (None, !reader.is_within_request())
    }

    const SIZES: [usize; 6] = [1, 2, 3, 5, 17, 10_000];

    #[test]
    fn whole_requests_end_between_requests_however_they_are_cut() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for text in [
            get.to_owned(),
            format!("\r\n\r\n{get}{get}"),
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\na\nb\n\n{get}"),
            format!("POST / HTTP/1.1\r\ncontent-LENGTH:   2   \r\nHost: a\r\n\r\n\n\n{get}"),
            format!(
                "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\n\n\n\n\n\n\r\n1F ; a=b\r\n{}\r\n0\r\n\r\n{get}",
                "\n".repeat(31)
            ),
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\nZ: a\r\n\r\n{get}"),
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ] {
            for size in SIZES {
                assert_eq!(read(&text, size), (None, true), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn a_bare_line_feed_in_any_line_of_any_head_is_found() {
        for text in [
            "GET / HTTP/1.1\n",
            "\n",
            "\r\n\n",
            "GET / HTTP/1.1\r\nHost: a\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\nGET /\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\nGET /\n",
            // A faulty length counts as no body: the parser refuses the request anyway.
            "POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n\n",
            "POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\n\n",
        ] {
            for size in SIZES {
                assert_eq!(
                    read(text, size),
                    (Some(text.len() - 1), false),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn a_request_that_has_not_come_whole_is_known_as_such() {
        for text in [
            "G",
            "\r",
            "\r\n",
            "GET / HTTP/1.1\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        ] {
            for size in SIZES {
                assert_eq!(read(text, size), (None, false), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn a_line_without_an_end_does_not_fill_the_memory() {
        let mut reader = RequestReader::default();
        for _ in 0..1_000 {
            assert_eq!(reader.read(&[b'x'; 1_000]), None);
        }
        assert!(
            reader.line.capacity() <= 2 * LINE_BYTES,
            "{}",
            reader.line.capacity()
        );
    }
}
