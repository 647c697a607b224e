//! Suggestions for misspelt names.

use strsim::levenshtein;

/// Returns the candidate with the smallest edit distance, if that is small for the name's length. Case
/// is ignored: `clustercidr` matches `clusterCIDR`.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    let scored =
        candidates.into_iter().map(|candidate| (levenshtein(&wanted, &candidate.to_lowercase()), candidate));
    scored
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Returns the candidate with the smallest edit distance, however large; the first of several.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    candidates.into_iter().min_by_key(|candidate| levenshtein(&wanted, &candidate.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let names = ["clusterCIDR", "masqueradeBit", "masqueradeAll", "mode"];
        let rows = [
            ("clusterCidr", Some("clusterCIDR")),
            ("masqueradBit", Some("masqueradeBit")),
            ("masqueradeAl", Some("masqueradeAll")),
            ("mod", Some("mode")),
            ("mdoe", None),
            ("bridge", None),
        ];
        for (typed, meant) in rows {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }
}
