//! The form that explains a connection, with the functions of `portcullis explain`.

use maud::{Markup, html};

use super::evaluation::{EvaluationError, KnownCluster};
use super::icons::Level;
use super::layout::{Page, Part};
use super::query::Query;
use crate::commands::explain::{self, ExplainResult};
use crate::config::{Config, Explain};

/// The largest explanation that the page shows, in bytes. One of a Service with a thousand endpoints has about 300,000.
const MAX_TEXT: usize = 512 << 10;

/// The result of an explanation: its text and whether the connection arrives; or why there is none.
pub(super) type Explained = Result<(String, bool), String>;

/// The connection that a request asks for.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    from: String,
    to: String,
    port: String,
}

impl Connection {
    pub(super) fn new(request: &Query<'_>) -> Self {
        let text = |name| request.text(name).to_owned();
        Connection { from: text("from"), to: text("to"), port: text("port") }
    }

    /// Returns true if both ends are given.
    pub(super) fn is_complete(&self) -> bool {
        !self.from.is_empty() && !self.to.is_empty()
    }

    /// Explains the connection.
    pub(super) fn explain(&self, config: &Config, cluster: &KnownCluster) -> Explained {
        if !cluster.is_ready {
            return Err("The daemon has not listed all objects yet.".to_owned());
        }
        let arguments = Explain::new(
            &self.from,
            &self.to,
            Some(&self.port).filter(|port| !port.is_empty()).map(String::as_str),
        );
        let mut out = Vec::new();
        let result = explain::explain_index(config, &cluster.index, &arguments, &mut out)
            .map_err(|error| error.to_string())?;
        // No probe is sent.
        let arrives = result == ExplainResult::Predicted { arrives: true };
        let mut text = String::from_utf8_lossy(&out).into_owned();
        if text.len() > MAX_TEXT {
            text.truncate(text.floor_char_boundary(MAX_TEXT));
            text.push_str("\n… The rest is omitted; portcullis explain prints all of it.\n");
        }
        if !cluster.has_policies() {
            text.push_str(
                "\nnote: this daemon does not enforce policies, so it watches neither policies nor pods: policies are not \
                 evaluated here, and pods are known by their addresses only. portcullis explain reads them from the API server\n",
            );
        }
        Ok((text, arrives))
    }
}

/// Returns the page. `explained`: the result, if the request asks for one.
pub(super) fn page(connection: &Connection, explained: Option<&Result<Explained, EvaluationError>>) -> Page {
    let content = html! {
        h1 { "Explain a connection" }
        p .note {
            "Traces a connection through Services and policies, as this daemon knows them. No packet is sent. "
            code { "portcullis explain --probe" } " on the node sends one."
        }
        form .filter method="get" action=(Part::Explain.path()) {
            div {
                label for="from" { "From" }
                input #from type="text" name="from" value=(connection.from) required maxlength="300" autocomplete="off"
                    spellcheck="false" aria-describedby="from-hint";
                span .hint #from-hint { "NAMESPACE/POD, node/NAME or an address" }
            }
            div {
                label for="to" { "To" }
                input #to type="text" name="to" value=(connection.to) required maxlength="300" autocomplete="off"
                    spellcheck="false" aria-describedby="to-hint";
                span .hint #to-hint { "NAMESPACE/SERVICE, NAMESPACE/POD or an address" }
            }
            div {
                label for="port" { "Port (optional)" }
                input #port type="text" name="port" value=(connection.port) maxlength="40" size="10" autocomplete="off"
                    spellcheck="false" aria-describedby="port-hint";
                span .hint #port-hint { "80, 53/udp or a name" }
            }
            div { button type="submit" { "Explain" } span .hint { "\u{a0}" } }
        }
        @match explained {
            None => {}
            Some(Err(error)) => (problem("Not explained", &error.to_string())),
            Some(Ok(Err(message))) => (problem("Not explained", message)),
            Some(Ok(Ok((text, arrives)))) => (result(text, *arrives)),
        }
    };
    Page { title: "Explain".to_owned(), part: Some(Part::Explain), refreshes: false, content }
}

/// Returns a banner about a request that has no result.
pub(super) fn problem(headline: &str, message: &str) -> Markup {
    html! {
        section .verdict .warning aria-labelledby="problem" {
            (Level::Warning.icon())
            h2 #problem { (headline) }
            p { (message) }
        }
    }
}

/// The words with which a line of an explanation starts, or that follow the name of an end of a connection.
const WORDS: [(&str, Level); 4] = [
    ("PARTLY ALLOWED", Level::Warning),
    ("ALLOWED", Level::Good),
    ("DENIED", Level::Bad),
    ("UNREACHABLE", Level::Bad),
];

fn result(text: &str, arrives: bool) -> Markup {
    let first = text.lines().find(|line| !line.is_empty()).unwrap_or_default();
    let level = match verdict_word(first) {
        Some((_, _, level)) if level != Level::Good || arrives => level,
        _ if arrives => Level::Good,
        _ => Level::Bad,
    };
    let headline = match level {
        Level::Good => "The connection is allowed",
        Level::Warning => "The connection reaches some endpoints",
        Level::Bad => "The connection does not arrive",
    };
    html! {
        section .verdict .(level.class()) aria-labelledby="result" {
            (level.icon())
            h2 #result { (headline) }
            p { (first) }
        }
        h2 { "Details" }
        pre tabindex="0" aria-label="Explanation" { @for line in text.lines() { (marked(line)) "\n" } }
    }
}

/// Returns a line with its verdict in color; the word itself says the same.
fn marked(line: &str) -> Markup {
    match verdict_word(line) {
        Some((before, word, level)) => {
            let after = &line[before.len() + word.len()..];
            html! { (before) strong class=(level.class()) { (word) } (after) }
        }
        None => html! { (line) },
    }
}

/// Returns the verdict in a line with the text before it.
fn verdict_word(line: &str) -> Option<(&str, &'static str, Level)> {
    let found = WORDS.iter().filter_map(|(word, level)| Some((line.find(word)?, *word, *level)));
    // A name of an object has no capital letters.
    let (at, word, level) = found.min_by_key(|(at, ..)| *at)?;
    Some((&line[..at], word, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_found_in_lines() {
        let rows = [
            ("ALLOWED  shop/web to …", Some(("", "ALLOWED"))),
            ("PARTLY ALLOWED  shop/web", Some(("", "PARTLY ALLOWED"))),
            ("  ingress  DENIED: no rule", Some(("  ingress  ", "DENIED"))),
            ("ALLOWED 80/tcp; DENIED 81/tcp", Some(("", "ALLOWED"))),
            ("  egress   no policy applies", None),
        ];
        for (line, expected) in rows {
            assert_eq!(verdict_word(line).map(|(before, word, _)| (before, word)), expected, "{line}");
        }
    }

    #[test]
    fn explanations_are_escaped() {
        let text = "DENIED  <script>alert(1)</script> & \"x\"\n";
        let html = result(text, false).into_string();
        assert!(!html.contains("<script>"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;x&quot;"), "{html}");
    }
}
