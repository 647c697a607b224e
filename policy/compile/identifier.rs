//! Names of nf_tables objects: a readable part, and a hash of the whole content that makes the name unique.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

/// Maximum length of the readable part. With prefix and hash a name is well below the limit of nf_tables, 255 bytes
/// (`NFT_NAME_MAXLEN`).
const READABLE: usize = 80;

/// Maximum length of a comment in bytes (`NFT_USERDATA_MAXLEN` is 256, and the renderer may extend a comment).
const COMMENT: usize = 128;

/// Hash of a list of parts. Each part is hashed with its length, so that different lists have different hashes.
pub(super) struct Digest(Sha256);

impl Digest {
    /// Starts the hash of an object of this kind.
    pub(super) fn new(kind: &str) -> Self {
        let mut digest = Digest(Sha256::new());
        digest.part(kind);
        digest
    }

    /// Adds a part.
    pub(super) fn part(&mut self, text: &str) -> &mut Self {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Returns the first half of the hash, which is enough to avoid collisions.
    pub(super) fn finish(self) -> [u8; 16] {
        let whole = self.0.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        half
    }
}

/// Returns `prefix-readable-hash`, with 16 characters of hash as in kube-proxy's names: letters, digits and `_./-`.
pub(super) fn identifier(prefix: &str, readable: &str, digest: &[u8; 16]) -> String {
    let allowed = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '/' | '-' => c,
        ' ' => '.',
        _ => '_',
    };
    let readable: String = readable.chars().map(allowed).take(READABLE).collect();
    format!("{prefix}-{readable}-{}", suffix(digest))
}

/// Returns the part of a name that makes it unique: 16 characters of a hash of at least 10 bytes.
pub(crate) fn suffix(hash: &[u8]) -> String {
    BASE32_NOPAD.encode(&hash[..10]).to_lowercase()
}

/// Truncates a text to the length of a comment, ending in `...`.
pub(super) fn comment(mut text: String) -> String {
    if text.len() > COMMENT {
        let cut = text.floor_char_boundary(COMMENT - 3);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_valid_and_unique_per_content() {
        let name_of = |parts: &[&str]| {
            let mut digest = Digest::new("test");
            parts.iter().for_each(|part| {
                digest.part(part);
            });
            identifier("set", &parts.join(" "), &digest.finish())
        };
        let rows = [
            name_of(&["ab", "c"]),
            name_of(&["a", "bc"]),
            name_of(&["ä=\"b\"", "c"]),
            name_of(&["x".repeat(300).as_str()]),
        ];
        for name in &rows {
            assert!(name.len() <= 200 && name.starts_with("set-"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)), "{name}");
        }
        assert_eq!(rows[0], name_of(&["ab", "c"]));
        assert_ne!(rows[0], name_of(&["ab c"]));
        assert_ne!(rows[0].rsplit('-').next(), rows[1].rsplit('-').next());
    }

    #[test]
    fn comments_are_truncated_between_characters() {
        assert_eq!(comment("short".into()), "short");
        let long = comment("ä".repeat(100));
        assert!(long.len() <= COMMENT && long.ends_with("ä..."), "{long}");
    }
}
