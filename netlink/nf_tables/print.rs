//! Printing of tables, chains and sets in the format of `nft -y list`.

use std::fmt::{self, Display, Formatter, Write};

use super::data_type::DataType;
use super::element::{Element, ElementData, Key};
use super::set::SetSpec;
use super::table::{Chain, Set, Table};

impl Display for Table {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family.as_str(), self.name)?;
        if let Some(comment) = &self.comment {
            writeln!(f, "\tcomment \"{comment}\"")?;
        }
        for (name, comment) in &self.counters {
            writeln!(f, "\tcounter {name} {{")?;
            if let Some(comment) = comment {
                writeln!(f, "\t\tcomment \"{comment}\"")?;
            }
            writeln!(f, "\t}}\n")?;
        }
        for (name, set) in &self.sets {
            writeln!(f, "\t{} {name} {{", if set.spec.is_map() { "map" } else { "set" })?;
            writeln!(f, "{set}\t}}\n")?;
        }
        for (name, chain) in &self.chains {
            writeln!(f, "\tchain {name} {{\n{chain}\t}}\n")?;
        }
        f.write_str("}\n")
    }
}

impl Display for Chain {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(comment) = &self.comment {
            writeln!(f, "\t\tcomment \"{comment}\"")?;
        }
        if let Some(base) = &self.base {
            let (kind, hook) = (base.kind.as_str(), base.hook.as_str());
            writeln!(f, "\t\ttype {kind} hook {hook} priority {}; policy accept;", base.priority)?;
        }
        self.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))
    }
}

impl Display for Set {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let SetSpec { key, data, .. } = &self.spec;
        f.write_str("\t\ttype ")?;
        join(f, key.iter(), " . ", |f, part| f.write_str(part.as_str()))?;
        if self.spec.is_map() {
            f.write_str(" : ")?;
            join(f, data.iter(), " . ", |f, part| f.write_str(part.as_str()))?;
        }
        f.write_char('\n')?;
        if let Some(size) = self.spec.size {
            writeln!(f, "\t\tsize {size}")?;
        }
        let names = [("dynamic", self.spec.dynamic), ("interval", self.spec.interval)];
        let names = names.into_iter().chain([("timeout", self.spec.timeout.is_some())]);
        let flags: Vec<&str> = names.filter(|(_, on)| *on).map(|(name, _)| name).collect();
        if !flags.is_empty() {
            writeln!(f, "\t\tflags {}", flags.join(","))?;
        }
        if let Some(timeout) = self.spec.timeout.filter(|timeout| *timeout > 0) {
            writeln!(f, "\t\ttimeout {}", Span(timeout))?;
        }
        if self.spec.counter {
            writeln!(f, "\t\tcounter")?;
        }
        if let Some(comment) = &self.spec.comment {
            writeln!(f, "\t\tcomment \"{comment}\"")?;
        }
        if self.elements.is_empty() {
            return Ok(());
        }
        f.write_str("\t\telements = { ")?;
        join(f, self.sorted().into_iter(), ",\n\t\t\t     ", |f, (key, element)| {
            print_element(f, &self.spec, &key, &element)
        })?;
        f.write_str(" }\n")
    }
}

impl Set {
    fn sorted(&self) -> Vec<(Key, Element)> {
        let mut elements: Vec<(Key, Element)> = self.elements.iter().collect();
        elements.sort_by(|(a, _), (b, _)| a.cmp(b));
        elements
    }

    /// Returns the printed elements, sorted by key.
    pub fn element_lines(&self) -> impl Iterator<Item = String> + '_ {
        let known = self.sorted().into_iter().map(|(key, element)| {
            std::fmt::from_fn(|f| print_element(f, &self.spec, &key, &element)).to_string()
        });
        known.chain(self.unknown.iter().cloned())
    }

    /// Returns an element as it is printed.
    pub fn line<'a>(&'a self, key: &'a Key, element: &'a Element) -> impl Display + 'a {
        fmt::from_fn(move |f| print_element(f, &self.spec, key, element))
    }
}

fn print_element(f: &mut Formatter<'_>, spec: &SetSpec, key: &Key, element: &Element) -> fmt::Result {
    match &element.last {
        Some(last) if last != key => print_range(f, &spec.key, key.bytes(), last.bytes())?,
        _ => print_parts(f, &spec.key, key.bytes())?,
    }
    if let Some(timeout) = element.timeout {
        write!(f, " timeout {}", Span(timeout))?;
    }
    match &element.data {
        None => Ok(()),
        Some(ElementData::Verdict(verdict)) => write!(f, " : {verdict}"),
        Some(ElementData::Value(value)) => {
            f.write_str(" : ")?;
            print_parts(f, &spec.data, value.bytes())
        }
    }
}

/// Splits padded bytes into parts of these types.
fn parts<'a>(types: &'a [DataType], mut bytes: &'a [u8]) -> impl Iterator<Item = (DataType, &'a [u8])> {
    types.iter().map(move |part| {
        let (this, rest) = bytes.split_at(part.length().next_multiple_of(4).min(bytes.len()));
        bytes = rest;
        (*part, &this[..part.length().min(this.len())])
    })
}

fn print_parts(f: &mut Formatter<'_>, types: &[DataType], bytes: &[u8]) -> fmt::Result {
    join(f, parts(types, bytes), " . ", |f, (part, bytes)| part.print(bytes, f))
}

fn print_range(f: &mut Formatter<'_>, types: &[DataType], first: &[u8], last: &[u8]) -> fmt::Result {
    let both = parts(types, first).zip(parts(types, last));
    join(f, both, " . ", |f, ((part, first), (_, last))| {
        part.print(first, f)?;
        if first == last {
            return Ok(());
        }
        match prefix_length(first, last) {
            Some(length) if matches!(part, DataType::Ipv4Addr | DataType::Ipv6Addr) => write!(f, "/{length}"),
            _ => {
                f.write_char('-')?;
                part.print(last, f)
            }
        }
    })
}

/// Returns the prefix length of a range that is an address block.
fn prefix_length(first: &[u8], last: &[u8]) -> Option<u32> {
    let number = |bytes: &[u8]| bytes.iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
    let (bits, first, last) = (first.len() as u32 * 8, number(first), number(last));
    let host = (first ^ last)
        .checked_add(1)
        .map_or(128, |size| if size.is_power_of_two() { size.trailing_zeros() } else { 129 });
    let mask = 1u128.checked_shl(host).map_or(u128::MAX, |size| size - 1);
    (host <= bits && first & mask == 0 && last & mask == mask).then(|| bits - host)
}

fn join<T>(
    f: &mut Formatter<'_>,
    items: impl Iterator<Item = T>,
    between: &str,
    mut print: impl FnMut(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (position, item) in items.enumerate() {
        if position > 0 {
            f.write_str(between)?;
        }
        print(f, item)?;
    }
    Ok(())
}

/// A time span in milliseconds, in the format of `nft`: `1h10m42s`.
pub(super) struct Span(pub(super) u64);

impl Display for Span {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (mut rest, mut printed) = (self.0, false);
        for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                (rest, printed) = (rest % unit, true);
            }
        }
        if printed { Ok(()) } else { f.write_str("0s") }
    }
}
