//! A parser of rules as `iptables-save` prints them, as far as this program needs their parts.

use std::borrow::Cow;

/// Returns the chain that a line `:CHAIN …` declares; `None` for other lines.
pub(crate) fn declared_chain(line: &str) -> Option<&str> {
    line.strip_prefix(':').and_then(|declared| declared.split(' ').next())
}

/// A line `-A CHAIN …`, split into words. A quoted text is one word and keeps its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedRule<'a> {
    /// The chain that contains it.
    pub(crate) chain: &'a str,
    words: Vec<&'a str>,
}

impl<'a> SavedRule<'a> {
    /// Parses a line; `None` if it is no rule.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let mut words = words(line);
        let ("-A", chain) = (words.next()?, words.next()?) else { return None };
        Some(SavedRule { chain, words: words.collect() })
    }

    /// Returns the chain that it jumps or goes to, or a target such as `DROP`.
    pub(crate) fn target(&self) -> Option<&'a str> {
        self.value_of(&["-j", "-g"])
    }

    /// Returns its packet and byte counters, if they are printed.
    pub(crate) fn counters(&self) -> Option<(u64, u64)> {
        let at = self.position_of(&["-c"])?;
        let number = |n: usize| self.words.get(at + n)?.parse().ok();
        Some((number(1)?, number(2)?))
    }

    /// Returns its comment, without quotes.
    pub(crate) fn comment(&self) -> Option<Cow<'a, str>> {
        self.value_of(&["--comment"]).map(unquoted)
    }

    /// Returns its words without the comment, which has no effect on packets.
    pub(crate) fn effect(&self) -> impl Iterator<Item = &'a str> + '_ {
        let comment = self.position_of(&["--comment"]);
        let hidden = comment.map_or(0..0, |at| at.saturating_sub(2)..at + 2);
        self.words.iter().enumerate().filter(move |(i, _)| !hidden.contains(i)).map(|(_, word)| *word)
    }

    /// Returns all its words but `-A CHAIN`.
    pub(crate) fn words(&self) -> &[&'a str] {
        &self.words
    }

    fn value_of(&self, options: &[&str]) -> Option<&'a str> {
        self.words.get(self.position_of(options)? + 1).copied()
    }

    fn position_of(&self, options: &[&str]) -> Option<usize> {
        let mut at = 0;
        while let Some(word) = self.words.get(at) {
            if options.contains(word) {
                return Some(at);
            }
            // A comment of one word has no quotes, and may look like an option.
            at += if *word == "--comment" { 2 } else { 1 };
        }
        None
    }
}

/// Splits at white space outside of quotes.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let (word, after) = rest.split_at(end_of_word(rest));
        rest = after;
        Some(word)
    })
}

fn end_of_word(text: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte.is_ascii_whitespace() && !quoted => return at,
            _ => {}
        }
    }
    text.len()
}

fn unquoted(word: &str) -> Cow<'_, str> {
    let Some(inner) = word.strip_prefix('"').and_then(|w| w.strip_suffix('"')) else { return word.into() };
    if !inner.contains('\\') {
        return inner.into();
    }
    let mut characters = inner.chars();
    let mut text = String::with_capacity(inner.len());
    while let Some(character) = characters.next() {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_comments() {
        #[rustfmt::skip]
        let rows = [
            ("-A OUTPUT -j KUBE-SERVICES", "OUTPUT", Some("KUBE-SERVICES"), None, "-j KUBE-SERVICES"),
            ("-A A -m comment --comment \"a b\" -g B", "A", Some("B"), Some("a b"), "-g B"),
            ("-A A -m comment --comment -j -j B", "A", Some("B"), Some("-j"), "-j B"),
            ("-A A -m comment --comment \"say \\\"-j C\\\"\" -j B", "A", Some("B"), Some("say \"-j C\""), "-j B"),
            ("-A A -m string --string \"-j\" --algo bm", "A", None, None, "-m string --string \"-j\" --algo bm"),
            ("-A A  -p tcp   -j DROP", "A", Some("DROP"), None, "-p tcp -j DROP"),
            ("-A A -m comment --comment", "A", None, None, ""),
        ];
        for (line, chain, target, comment, effect) in rows {
            let rule = SavedRule::parse(line).expect(line);
            assert_eq!((rule.chain, rule.target()), (chain, target), "{line}");
            assert_eq!(rule.comment().as_deref(), comment, "{line}");
            assert_eq!(rule.effect().collect::<Vec<_>>().join(" "), effect, "{line}");
        }
        for line in ["COMMIT", ":KUBE-SERVICES - [0:0]", "*nat", "", "-A", "-X A"] {
            assert_eq!(SavedRule::parse(line), None, "{line}");
        }
    }
}
