//! The words of a line.

/// The words of a line, separated by blanks. Commas and quoted texts are words.
pub struct Words<'a> {
    line: &'a str,
    words: std::iter::Peekable<std::vec::IntoIter<&'a str>>,
}

impl<'a> Words<'a> {
    pub fn new(line: &'a str) -> Self {
        let mut words = Vec::new();
        let mut rest = line.trim();
        while !rest.is_empty() {
            let end = match rest.strip_prefix('"') {
                Some(quoted) => 2 + quoted.find('"').unwrap_or_else(|| panic!("unclosed quote: {line}")),
                None => rest.find(char::is_whitespace).unwrap_or(rest.len()),
            };
            let (word, behind) = rest.split_at(end);
            rest = behind.trim_start();
            match word.strip_suffix(',') {
                Some(word) if !word.is_empty() => words.extend([word, ","]),
                _ => words.push(word),
            }
        }
        Words { line, words: words.into_iter().peekable() }
    }

    pub fn peek(&mut self) -> Option<&'a str> {
        self.words.peek().copied()
    }

    #[track_caller]
    pub fn next(&mut self) -> &'a str {
        self.words.next().unwrap_or_else(|| panic!("the line ends too early: {}", self.line))
    }

    /// Takes the next word if it equals `word`.
    pub fn take(&mut self, word: &str) -> bool {
        self.words.next_if_eq(&word).is_some()
    }

    /// Takes the next words.
    ///
    /// # Panics
    /// If they differ from `words`.
    #[track_caller]
    pub fn expect(&mut self, words: &str) {
        for word in words.split(' ') {
            let found = self.next();
            assert_eq!(found, word, "in {}", self.line);
        }
    }

    /// Takes a quoted text.
    #[track_caller]
    pub fn text(&mut self) -> &'a str {
        let word = self.next();
        let inner = word.strip_prefix('"').and_then(|word| word.strip_suffix('"'));
        inner.unwrap_or_else(|| panic!("{word} is not in quotes: {}", self.line))
    }

    #[track_caller]
    pub fn number<T: std::str::FromStr>(&mut self) -> T {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("invalid number or address {word}: {}", self.line))
    }

    /// Takes a packet mark: a hexadecimal number.
    #[track_caller]
    pub fn mark(&mut self) -> u32 {
        let word = self.next();
        let digits = word.strip_prefix("0x").unwrap_or_else(|| panic!("{word} is no mark: {}", self.line));
        u32::from_str_radix(digits, 16).expect("hexadecimal digits")
    }

    #[track_caller]
    pub fn unknown(&mut self) -> ! {
        panic!("{:?} is unknown here: {}", self.peek(), self.line)
    }
}
