//! Excerpts of texts that the owners of objects choose.

/// Returns a text, or its beginning and its length if it is longer than this number of bytes. An object may have strings of
/// more than a megabyte, and messages about them are logged, kept and sent.
pub(crate) fn excerpt(text: impl Into<String>, bytes: usize) -> String {
    let mut text = text.into();
    let length = text.len();
    if length > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push_str(&format!("… ({length} bytes)"));
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{Kind, Object};

    #[test]
    fn long_texts_are_truncated_at_a_character() {
        assert_eq!(excerpt("short", 5), "short");
        assert_eq!(excerpt("longer", 4), "long… (6 bytes)");
        assert_eq!(excerpt("éé", 3), "é… (4 bytes)");
    }

    #[test]
    fn messages_about_huge_values_are_short() {
        let huge = || "x".repeat(1 << 20);
        let metadata = json!({"name": "a", "namespace": "ns"});
        let labels = json!({huge(): "v"});
        let selector = json!({"matchLabels": {huge(): huge()}});
        let rows: [(Kind, Value); 5] = [
            (
                Kind::Service,
                json!({"metadata": metadata, "spec": {"externalIPs": [huge()], "clusterIP": huge()}}),
            ),
            (Kind::Service, json!({"metadata": metadata, "spec": {"ports": huge()}})),
            (Kind::NetworkPolicy, json!({"metadata": metadata, "spec": {"podSelector": selector}})),
            (Kind::Service, json!({"metadata": {"name": huge()}})),
            (
                Kind::Pod,
                json!({"metadata": {"name": "a", "namespace": "ns", "labels": labels}, "spec": {"nodeName": 7}}),
            ),
        ];
        for (number, (kind, value)) in rows.into_iter().enumerate() {
            let messages = match Object::parse(kind, value) {
                Ok(parsed) => parsed.problems.iter().map(ToString::to_string).collect(),
                Err(error) => vec![error.to_string()],
            };
            assert!(!messages.is_empty(), "row {number}");
            assert!(
                messages.iter().all(|message| message.len() < 2000),
                "row {number}: {} bytes",
                messages[0].len()
            );
        }
    }
}
