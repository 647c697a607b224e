//! Comments of tables, chains, rules and sets, in the user data that `nft` writes. The kernel stores it without reading it.

use crate::attribute::Writer;

/// The type of a comment in the user data of tables, chains, rules and objects (`NFTNL_UDATA_RULE_COMMENT` and others).
pub(super) const COMMENT: u8 = 0;
/// The type of a comment in the user data of sets (`NFTNL_UDATA_SET_COMMENT`).
pub(super) const SET_COMMENT: u8 = 7;

/// The longest comment, in bytes (`NFTNL_UDATA_COMMENT_MAXLEN`, less its NUL).
const MAX_LENGTH: usize = 127;

/// Truncates a text to the length of a comment, and replaces quotation marks, which `nft` cannot parse back.
pub(super) fn sanitize(text: &str) -> String {
    let mut end = text.len().min(MAX_LENGTH);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace(['"', '\0'], "'")
}

/// Writes a comment as user data: type, length, text, NUL.
pub(super) fn write(out: &mut Writer<'_>, attribute: u16, kind: u8, comment: Option<&str>) {
    let Some(comment) = comment else { return };
    let mut bytes = vec![kind, comment.len() as u8 + 1];
    bytes.extend_from_slice(comment.as_bytes());
    bytes.push(0);
    out.bytes(attribute, &bytes);
}

/// Returns the comment in user data.
pub(super) fn read(mut user_data: &[u8], kind: u8) -> Option<String> {
    while let [this, length, rest @ ..] = user_data {
        let text = rest.get(..usize::from(*length))?;
        if *this == kind {
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            return Some(String::from_utf8_lossy(&text[..end]).into_owned());
        }
        user_data = &rest[text.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_finds_comments_among_other_user_data() {
        let mut bytes = vec![1, 4, 0, 0, 0, 0];
        bytes.extend_from_slice(b"\x07\x03hi\0");
        assert_eq!(read(&bytes, SET_COMMENT).as_deref(), Some("hi"));
        assert_eq!(read(&bytes, COMMENT), None);
        assert_eq!(read(&[7, 200, 1], SET_COMMENT), None);
        assert_eq!(sanitize(&"ä".repeat(100)).len(), 126);
    }
}
