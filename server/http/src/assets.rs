//! Static files. The binary contains them. The name of each file contains a hash of its content, so a browser may cache the file forever.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, http::Method};

/// One year: the file's name changes when its content does.
const FOREVER: &str = "public, max-age=31536000, immutable";

/// A static file.
struct Asset {
    name: &'static str,
    extension: &'static str,
    content_type: &'static str,
    content: &'static str,
    path: LazyLock<String>,
}

macro_rules! asset {
    ($name:literal, $extension:literal, $content_type:literal, $file:literal) => {
        Asset {
            name: $name,
            extension: $extension,
            content_type: $content_type,
            content: include_str!(concat!("../static/", $file)),
            path: LazyLock::new(|| {
                let hash = const { hash(include_str!(concat!("../static/", $file)).as_bytes()) };
                format!("/static/{}-{hash:016x}.{}", $name, $extension)
            }),
        }
    };
}

static ASSETS: [Asset; 4] = [
    asset!("tokens", "css", "text/css; charset=utf-8", "css/tokens.css"),
    asset!("base", "css", "text/css; charset=utf-8", "css/base.css"),
    asset!("parts", "css", "text/css; charset=utf-8", "css/parts.css"),
    asset!("favicon", "svg", "image/svg+xml", "img/favicon.svg"),
];

/// Returns the path of a file by its plain name (`tokens.css`), for templates. Returns an empty string if there is no such file; a test detects that.
#[must_use]
pub fn path(file: &str) -> &'static str {
    let named = |asset: &&Asset| file.split_once('.') == Some((asset.name, asset.extension));
    ASSETS.iter().find(named).map_or("", |asset| asset.path.as_str())
}

/// Mounts the routes of all files.
pub fn configure(config: &mut ServiceConfig) {
    for asset in &ASSETS {
        let serve = || async {
            HttpResponse::Ok()
                .content_type(asset.content_type)
                .insert_header((header::CACHE_CONTROL, FOREVER))
                .body(asset.content)
        };
        config.service(
            web::resource(asset.path.as_str())
                .route(web::get().to(serve))
                .route(web::method(Method::HEAD).to(serve)),
        );
    }
}

/// FNV-1a, 64 bits, computed at compile time. It only distinguishes versions of our own files, so it need not withstand attacks.
const fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_paths_that_hold_their_hash() {
        assert_eq!(hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);

        for file in ["tokens.css", "base.css", "parts.css", "favicon.svg"] {
            let (name, extension) = file.split_once('.').unwrap();
            let path = path(file);
            assert!(
                path.starts_with(&format!("/static/{name}-")) && path.ends_with(extension),
                "{path}"
            );
        }
        assert_eq!(path("nothing.css"), "");
    }

    /// The CSP forbids styles to load anything from other hosts, so a style that does would not work.
    #[test]
    fn styles_load_nothing_from_elsewhere() {
        for asset in &ASSETS {
            assert!(
                !asset.content.contains("@import") && !asset.content.contains("url("),
                "{}",
                asset.name
            );
        }
    }
}
