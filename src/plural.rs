//! Numbers with nouns, in messages and output.

use std::fmt::Display;

/// Returns a number with a noun whose plural ends in `s`: `1 port`, `2 ports`.
pub(crate) fn plural(number: usize, noun: &str) -> String {
    irregular(number, noun, &format!("{noun}s"))
}

/// Returns a number with one of two nouns: `1 entry`, `2 entries`.
pub(crate) fn irregular<N: Display + PartialEq + From<u8>>(number: N, one: &str, several: &str) -> String {
    let noun = if number == N::from(1) { one } else { several };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_is_singular() {
        let plurals = [0, 1, 2].map(|number| plural(number, "port"));
        assert_eq!(plurals, ["0 ports", "1 port", "2 ports"]);
        assert_eq!([1_u64, 2].map(|number| irregular(number, "entry", "entries")), ["1 entry", "2 entries"]);
    }
}
