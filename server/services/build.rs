//! Compiles the pages of docs/channels into the program. Each has an example of the kind's settings, which previews use.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/channels");
    println!("cargo:rerun-if-changed={}", pages.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&pages)? {
        let name = entry?.file_name();
        let name = name.to_str().and_then(|name| name.strip_suffix(".md"));
        names.extend(name.filter(|name| *name != "README").map(str::to_owned));
    }
    names.sort();
    let mut source = "&[\n".to_owned();
    for name in names {
        let page = pages.join(format!("{name}.md"));
        // Writing into a String cannot fail.
        let _ = writeln!(
            source,
            "    ({name:?}, include_str!({:?})),",
            page.display().to_string()
        );
    }
    source.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    fs::write(Path::new(&out).join("channel_pages.rs"), source)
}
