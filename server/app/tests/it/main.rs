//! What a caller sees over a port, and what happens when things break.

mod embedded_postgres;
mod harness;
mod ping_urls;
mod silence;
