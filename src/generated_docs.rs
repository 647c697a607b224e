//! Pages of `docs/` that are generated from code; `make bless` regenerates them.

use std::path::Path;
use std::{env, fs};

/// Fails with a diff if a page differs from the generated text; writes the page if `BLESS` is set.
pub(crate) fn assert_current(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if env::var_os("BLESS").is_some() {
        fs::write(&path, page).expect("docs can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let diff = similar::TextDiff::from_lines(written.as_str(), page);
    let diff = diff.unified_diff().header(name, "generated (make bless)").to_string();
    assert!(diff.is_empty(), "{diff}");
}
