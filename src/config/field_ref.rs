//! Typed reference to a field of [`Settings`](super::settings::Settings): parses a flag or a node of a file into the
//! field, and formats its value.

use std::collections::BTreeMap;
use std::fmt;

use super::document::{Entry, Node, Value};
use super::go_duration::GoDuration;
use super::go_number::{parse_bool, parse_integer, parse_quantity};
use super::settings::VModule;

/// Description of the expected value; completes "expected …".
pub(super) type ExpectedValue = &'static str;

pub(super) enum FieldRef<'a> {
    Bool(&'a mut bool),
    Integer(&'a mut i32),
    Float(&'a mut f32),
    Duration(&'a mut GoDuration),
    /// A duration that files may also specify as a number of nanoseconds (`logging.flushFrequency`).
    DurationOrNanoseconds(&'a mut GoDuration),
    Text(&'a mut String),
    /// A list; in a flag, which may be repeated, separated by commas.
    List(&'a mut Vec<String>),
    /// A list that is a string with commas, except in TOML.
    Joined(&'a mut Vec<String>),
    /// A Kubernetes resource quantity, kept as written.
    Quantity(&'a mut String),
    Gates(&'a mut BTreeMap<String, bool>),
    VModules(&'a mut Vec<VModule>),
}

const BOOL: ExpectedValue = "true or false";
const INTEGER: ExpectedValue = "a 32-bit integer";
const FLOAT: ExpectedValue = "a number";
const DURATION: ExpectedValue = "a duration such as \"30s\", \"1h30m\" or \"500ms\"";
const DURATION_OR_NANOSECONDS: ExpectedValue = "a duration such as \"5s\", or a number of nanoseconds";
const TEXT: ExpectedValue = "a string (put it in quotes)";
const LIST: ExpectedValue = "a list of strings";
const QUANTITY: ExpectedValue = "a size in bytes such as 512, \"1K\" or \"2Ki\"";
const GATES_FLAG: ExpectedValue = "GATE=true or GATE=false, separated by commas";
const GATES_FILE: ExpectedValue = "a mapping of feature gate names to true or false, without duplicates";
const VMODULE_FLAG: ExpectedValue = "PATTERN=LEVEL, separated by commas";
const VMODULE_FILE: ExpectedValue = "a list of mappings with filePattern and verbosity";

impl FieldRef<'_> {
    /// Parses the values of a flag, in the order of the command line.
    pub(super) fn read_flag(self, values: &[String]) -> Result<(), ExpectedValue> {
        let last = values.last().map_or("", String::as_str);
        match self {
            Self::Bool(field) => *field = parse_bool(last).ok_or(BOOL)?,
            Self::Integer(field) => {
                *field = parse_integer(last).and_then(|n| n.try_into().ok()).ok_or(INTEGER)?
            }
            Self::Float(field) => *field = last.parse().ok().filter(|n: &f32| n.is_finite()).ok_or(FLOAT)?,
            Self::Duration(field) | Self::DurationOrNanoseconds(field) => {
                *field = GoDuration::parse(last).ok_or(DURATION)?;
            }
            Self::Text(field) => *field = last.to_owned(),
            Self::List(field) => *field = values.iter().flat_map(|value| split_commas(value)).collect(),
            Self::Joined(field) => *field = split_commas(last),
            Self::Quantity(field) => {
                *field = parse_quantity(last).map(|_| last.to_owned()).ok_or(QUANTITY)?
            }
            Self::Gates(field) => *field = parse_gates_flag(values)?,
            Self::VModules(field) => *field = parse_vmodule_flag(last)?,
        }
        Ok(())
    }

    /// Parses a value of a file.
    pub(super) fn read_node(self, node: &Node) -> Result<(), ExpectedValue> {
        match (self, &node.value) {
            (Self::Bool(field), value) => *field = boolean(value).ok_or(BOOL)?,
            (Self::Integer(field), Value::Integer(n)) => *field = (*n).try_into().map_err(|_| INTEGER)?,
            (Self::Float(field), Value::Integer(n)) => *field = *n as f32,
            (Self::Float(field), Value::Float(n)) if n.is_finite() => *field = *n as f32,
            (Self::Duration(field), Value::Text(text)) => *field = GoDuration::parse(text).ok_or(DURATION)?,
            (Self::DurationOrNanoseconds(field), Value::Text(text)) => {
                *field = GoDuration::parse(text).ok_or(DURATION_OR_NANOSECONDS)?;
            }
            (Self::DurationOrNanoseconds(field), Value::Integer(nanoseconds)) => {
                *field = GoDuration(*nanoseconds)
            }
            (Self::Text(field), Value::Text(text)) => *field = text.clone(),
            (Self::List(field) | Self::Joined(field), Value::List(items)) => {
                *field = strings(items).ok_or(LIST)?
            }
            (Self::Joined(field), Value::Text(text)) => *field = split_commas(text),
            (Self::Quantity(field), Value::Integer(bytes)) if *bytes >= 0 => *field = bytes.to_string(),
            (Self::Quantity(field), Value::Text(text)) => {
                *field = parse_quantity(text).map(|_| text.clone()).ok_or(QUANTITY)?;
            }
            (Self::Gates(field), Value::Mapping(entries)) => *field = parse_gates_mapping(entries)?,
            // The form of the first releases of v1alpha1.
            (Self::Gates(field), Value::Text(text)) => {
                *field = parse_gates_flag(std::slice::from_ref(text)).map_err(|_| GATES_FILE)?;
            }
            (Self::VModules(field), Value::List(items)) => *field = parse_vmodule_list(items)?,
            (field_ref, _) => return Err(field_ref.expected_in_file()),
        }
        Ok(())
    }

    fn expected_in_file(&self) -> ExpectedValue {
        match self {
            Self::Bool(_) => BOOL,
            Self::Integer(_) => INTEGER,
            Self::Float(_) => FLOAT,
            Self::Duration(_) => DURATION,
            Self::DurationOrNanoseconds(_) => DURATION_OR_NANOSECONDS,
            Self::Text(_) => TEXT,
            Self::List(_) => LIST,
            Self::Joined(_) => "a string of values separated by commas",
            Self::Quantity(_) => QUANTITY,
            Self::Gates(_) => GATES_FILE,
            Self::VModules(_) => VMODULE_FILE,
        }
    }

    /// Returns true for Go's zero value, which upstream's defaulting treats as unset.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Bool(value) => !**value,
            Self::Integer(value) => **value == 0,
            Self::Float(value) => **value == 0.0,
            Self::Duration(value) | Self::DurationOrNanoseconds(value) => **value == GoDuration::ZERO,
            Self::Text(value) => value.is_empty(),
            Self::List(values) | Self::Joined(values) => values.is_empty(),
            Self::Quantity(value) => parse_quantity(value) == Some(0),
            Self::Gates(values) => values.is_empty(),
            Self::VModules(values) => values.is_empty(),
        }
    }

    pub(super) fn is_bool(&self) -> bool {
        matches!(self, Self::Bool(_))
    }

    /// Returns the name of the type in kube-proxy's help.
    pub(super) fn go_type(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Integer(_) => "int32",
            Self::Float(_) => "float32",
            Self::Duration(_) | Self::DurationOrNanoseconds(_) => "duration",
            Self::Text(_) | Self::Joined(_) => "string",
            Self::List(_) => "strings",
            Self::Quantity(_) => "quantity",
            Self::Gates(_) => "mapStringBool",
            Self::VModules(_) => "pattern=N,...",
        }
    }
}

impl fmt::Display for FieldRef<'_> {
    /// Formats the field as the value of a flag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Duration(value) | Self::DurationOrNanoseconds(value) => value.fmt(f),
            Self::Text(value) | Self::Quantity(value) => f.write_str(value),
            Self::List(values) | Self::Joined(values) => f.write_str(&values.join(",")),
            Self::Gates(gates) => {
                let pairs: Vec<_> = gates.iter().map(|(name, on)| format!("{name}={on}")).collect();
                f.write_str(&pairs.join(","))
            }
            Self::VModules(modules) => {
                let pairs: Vec<_> =
                    modules.iter().map(|m| format!("{}={}", m.file_pattern, m.verbosity)).collect();
                f.write_str(&pairs.join(","))
            }
        }
    }
}

fn split_commas(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(|part| part.trim().to_owned()).collect() }
}

fn boolean(value: &Value) -> Option<bool> {
    if let Value::Bool(value) = value { Some(*value) } else { None }
}

fn strings(items: &[Node]) -> Option<Vec<String>> {
    items
        .iter()
        .map(|item| if let Value::Text(text) = &item.value { Some(text.clone()) } else { None })
        .collect()
}

fn parse_gates_flag(values: &[String]) -> Result<BTreeMap<String, bool>, ExpectedValue> {
    let pairs = values.iter().flat_map(|value| value.split(',')).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, on) = pair.split_once('=').ok_or(GATES_FLAG)?;
            Ok((name.trim().to_owned(), parse_bool(on.trim()).ok_or(GATES_FLAG)?))
        })
        .collect()
}

fn parse_gates_mapping(entries: &[Entry]) -> Result<BTreeMap<String, bool>, ExpectedValue> {
    let mut gates = BTreeMap::new();
    for Entry { key, node, .. } in entries {
        let on = boolean(&node.value).ok_or(GATES_FILE)?;
        if gates.insert(key.clone(), on).is_some() {
            return Err(GATES_FILE);
        }
    }
    Ok(gates)
}

fn parse_vmodule_flag(value: &str) -> Result<Vec<VModule>, ExpectedValue> {
    let pairs = value.split(',').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (pattern, level) =
                pair.split_once('=').filter(|(pattern, _)| !pattern.is_empty()).ok_or(VMODULE_FLAG)?;
            let verbosity = level.parse::<i32>().ok().filter(|level| *level >= 0).ok_or(VMODULE_FLAG)?;
            Ok(VModule { file_pattern: pattern.to_owned(), verbosity })
        })
        .collect()
}

fn parse_vmodule_list(items: &[Node]) -> Result<Vec<VModule>, ExpectedValue> {
    items.iter().map(|item| parse_vmodule_mapping(item).ok_or(VMODULE_FILE)).collect()
}

fn parse_vmodule_mapping(item: &Node) -> Option<VModule> {
    let Value::Mapping(entries) = &item.value else { return None };
    let mut module = VModule { file_pattern: String::new(), verbosity: 0 };
    for Entry { key, node, .. } in entries {
        match (key.as_str(), &node.value) {
            ("filePattern", Value::Text(pattern)) => module.file_pattern = pattern.clone(),
            ("verbosity", Value::Integer(level)) if *level >= 0 => {
                module.verbosity = (*level).try_into().ok()?
            }
            _ => return None,
        }
    }
    Some(module).filter(|module| !module.file_pattern.is_empty() && !module.file_pattern.contains(['=', ',']))
}
