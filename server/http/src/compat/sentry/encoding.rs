//! Compressed bodies. Every decoder stops at the limit, so a small body cannot become a large one in memory.

use std::io::Read;

use brotli_decompressor::Decompressor;
use deadbeat_domain::limits;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::StreamingDecoder;

/// The largest window that a zstd frame may ask for, in bytes. The decoder reserves it before it reads a byte.
const ZSTD_WINDOW_BYTES: u64 = 8 << 20;
/// The buffer of the brotli decoder, in bytes.
const BROTLI_BUFFER_BYTES: usize = 4_096;

/// Decompresses at most [`limits::ENVELOPE_BYTES`] bytes. A body that breaks off yields what was read before. Returns `None` if the server does not
/// know the encoding, or the body does not have it.
pub(super) fn decode(encoding: &str, body: Vec<u8>) -> Option<Vec<u8>> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Some(body),
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(body.as_slice())),
        // RFC 9110 means zlib, but some clients send the bare stream.
        "deflate" => {
            read(ZlibDecoder::new(body.as_slice())).or_else(|| read(DeflateDecoder::new(body.as_slice())))
        }
        "br" => read(Decompressor::new(body.as_slice(), BROTLI_BUFFER_BYTES)),
        "zstd" if zstd_window(&body).is_some_and(|window| window <= ZSTD_WINDOW_BYTES) => {
            read(StreamingDecoder::new(body.as_slice()).ok()?)
        }
        _ => None,
    }
}

fn read(decoder: impl Read) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let most = u64::try_from(limits::ENVELOPE_BYTES).unwrap_or(u64::MAX);
    match decoder.take(most).read_to_end(&mut decoded) {
        Err(_) if decoded.is_empty() => None,
        _ => Some(decoded),
    }
}

/// Returns the window that a zstd frame asks for, in bytes (RFC 8878, 3.1.1.1).
fn zstd_window(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = *rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The whole content is one segment: its size is the window.
    let id_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(id_bytes..id_bytes + size_bytes)?;
    let size = field
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some(if size_bytes == 2 { size + 256 } else { size })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    const TEXT: &[u8] = b"{}\n{\"type\":\"check_in\"}\n{}\n";
    /// `brotli.compress(TEXT)` of Python's package.
    const BROTLI: &[u8] = b"\x8b\x0c\x80{}\n{\"type\":\"check_in\"}\n{}\n\x03";

    /// `brotli.compress(bytes(50_000_000))` of Python's package.
    const BROTLI_BOMB: &[u8] = b"\xcb\xff\xff\x3f\xf8\x27\x00\xe2\xb1\x40\x20\xf7\xfe\x8f\xff\xff\x7f\xf0\x4f\x00\xc4\x61\x11\x80\xee\xfd\x1f\xff\xff\xff\xe0\x9f\x00\x88\xc3\x02\x00\xdd\xfb\x3f\xfe\xff\xff\xc1\x3f\x01\x10\x87\x05\x00\xba\xf7\x7f\xfc\xff\xff\x83\x7f\x02\x20\x0e\x0b\x00\x74\xef\xff\xf2\x0f\x5e\x0f\xff\x04\x40\x1c\x16\x00\xe8\xa0\xeb\x01";

    fn finished<W: Write>(mut encoder: W, text: &[u8], finish: impl FnOnce(W) -> Vec<u8>) -> Vec<u8> {
        encoder.write_all(text).unwrap();
        finish(encoder)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let encoder = GzEncoder::new(Vec::new(), Compression::default());
        finished(encoder, text, |encoder| encoder.finish().unwrap())
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn every_encoding_of_a_client_is_read() {
        let zlib = finished(
            ZlibEncoder::new(Vec::new(), Compression::default()),
            TEXT,
            |encoder| encoder.finish().unwrap(),
        );
        let bare = finished(
            DeflateEncoder::new(Vec::new(), Compression::default()),
            TEXT,
            |encoder| encoder.finish().unwrap(),
        );
        for (encoding, body) in [
            ("", TEXT.to_vec()),
            ("identity", TEXT.to_vec()),
            ("gzip", gzip(TEXT)),
            (" GZIP ", gzip(TEXT)),
            ("deflate", zlib),
            ("deflate", bare),
            ("br", BROTLI.to_vec()),
            ("zstd", zstd(TEXT)),
        ] {
            assert_eq!(decode(encoding, body).as_deref(), Some(TEXT), "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_fills_no_memory() {
        let zeros = vec![0; 50_000_000];
        let bombs = [
            ("gzip", gzip(&zeros)),
            ("zstd", zstd(&zeros)),
            ("br", BROTLI_BOMB.to_vec()),
        ];
        for (encoding, bomb) in bombs {
            assert!(bomb.len() < limits::ENVELOPE_BYTES, "{encoding}");
            let decoded = decode(encoding, bomb).unwrap();
            assert_eq!(decoded.len(), limits::ENVELOPE_BYTES, "{encoding}");
        }
        // A frame of a few bytes that asks for a window of 128 MB.
        let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x88, 0x01, 0x00, 0x00];
        assert_eq!(zstd_window(&greedy), Some(128 << 20));
        assert_eq!(decode("zstd", greedy.to_vec()), None);
    }

    #[test]
    fn what_is_not_compressed_as_it_says_is_refused() {
        for encoding in ["gzip", "deflate", "br", "zstd", "compress", "gzip, br"] {
            assert_eq!(decode(encoding, b"\xff\xff plain".to_vec()), None, "{encoding}");
        }
        // A body that breaks off yields its beginning.
        let noise: Vec<u8> = (0..100_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let mut cut = gzip(&noise);
        cut.truncate(cut.len() / 2);
        let decoded = decode("gzip", cut).unwrap();
        assert!(!decoded.is_empty() && noise.starts_with(&decoded));
    }
}
