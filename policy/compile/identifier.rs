//! Names for nf_tables, made of what they name: readable, and told apart by a hash of the whole content.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};

/// How much of the readable part stays. With prefix and hash a name is well below the 255 bytes that
/// nf_tables takes (`NFT_NAME_MAXLEN`).
const READABLE: usize = 80;

/// How long a comment may be (`NFT_USERDATA_MAXLEN` is 256, and the renderer may want to add to it).
const COMMENT: usize = 128;

/// A hash of parts, each with its length, so that no two lists of parts run into one another.
pub(super) struct Digest(Sha256);

impl Digest {
    /// The hash of something of this sort.
    pub(super) fn new(sort: &str) -> Self {
        let mut digest = Digest(Sha256::new());
        digest.part(sort);
        digest
    }

    /// Adds a part.
    pub(super) fn part(&mut self, text: &str) -> &mut Self {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Half of the hash: enough that two contents never share it.
    pub(super) fn finish(self) -> [u8; 16] {
        let whole = self.0.finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&whole[..16]);
        half
    }
}

/// `prefix-readable-hash` with the 16 characters of kube-proxy's hashes: letters, digits and `_./-`.
pub(super) fn identifier(prefix: &str, readable: &str, digest: &[u8; 16]) -> String {
    let allowed = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '.' | '/' | '-' => c,
        ' ' => '.',
        _ => '_',
    };
    let readable: String = readable.chars().map(allowed).take(READABLE).collect();
    format!("{prefix}-{readable}-{}", BASE32_NOPAD.encode(&digest[..10]).to_lowercase())
}

/// A text that fits into a comment, with `...` where it had to be cut.
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
    fn identifiers_are_safe_and_tell_contents_apart() {
        let of = |parts: &[&str]| {
            let mut digest = Digest::new("test");
            parts.iter().for_each(|part| {
                digest.part(part);
            });
            identifier("set", &parts.join(" "), &digest.finish())
        };
        let rows =
            [of(&["ab", "c"]), of(&["a", "bc"]), of(&["ä=\"b\"", "c"]), of(&["x".repeat(300).as_str()])];
        for name in &rows {
            assert!(name.len() <= 200 && name.starts_with("set-"), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c)), "{name}");
        }
        assert_eq!(rows[0], of(&["ab", "c"]));
        assert_ne!(rows[0], of(&["ab c"]));
        assert_ne!(rows[0].rsplit('-').next(), rows[1].rsplit('-').next());
    }

    #[test]
    fn comments_are_cut_between_characters() {
        assert_eq!(comment("short".into()), "short");
        let long = comment("ä".repeat(100));
        assert!(long.len() <= COMMENT && long.ends_with("ä..."), "{long}");
    }
}
