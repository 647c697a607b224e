//! The stylesheet, script and icon of the page, which are part of the binary.
//!
//! Their paths contain a hash of their content, so that browsers keep them and still get those of a new version.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use data_encoding::HEXLOWER;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};

/// A file of the page.
pub(super) struct Asset {
    /// Its path, which changes with its content.
    pub(super) path: String,
    etag: HeaderValue,
    content_type: &'static str,
    text: &'static str,
}

/// All files.
pub(super) struct Assets {
    pub(super) style: Asset,
    pub(super) script: Asset,
    pub(super) icon: Asset,
}

/// The files, whose hashes are computed for the first page.
pub(super) static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    style: Asset::new("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    script: Asset::new("refresh.js", "text/javascript; charset=utf-8", include_str!("assets/refresh.js")),
    icon: Asset::new("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
});

/// How many characters of a hash a path has.
const HASH_LENGTH: usize = 16;

impl Asset {
    fn new(name: &str, content_type: &'static str, text: &'static str) -> Self {
        let hash = &HEXLOWER.encode(&Sha256::digest(text))[..HASH_LENGTH];
        let etag = HeaderValue::try_from(format!("\"{hash}\"")).expect("a hash in quotes is a header value");
        Asset { path: format!("/assets/{hash}/{name}"), etag, content_type, text }
    }

    fn respond(&self, headers: &HeaderMap) -> Response {
        let has_it = headers.get_all(IF_NONE_MATCH).iter().any(|etag| *etag == self.etag);
        let mut response = match has_it {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.text.into_response(),
        };
        let headers = response.headers_mut();
        if has_it {
            headers.remove(CONTENT_TYPE);
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        headers.insert(ETAG, self.etag.clone());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        response
    }
}

/// Handles `/assets/{hash}/{name}`. `None`: there is no such file; it may be one of another version.
pub(super) fn respond(Path((hash, name)): Path<(String, String)>, headers: &HeaderMap) -> Option<Response> {
    let path = format!("/assets/{hash}/{name}");
    let Assets { style, script, icon } = &*ASSETS;
    [style, script, icon].into_iter().find(|asset| asset.path == path).map(|asset| asset.respond(headers))
}
