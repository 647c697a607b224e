//! Minimal Helm: Go templates and the Helm functions that the chart uses.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

use gtmpl_ng::{Context, Func, FuncError, Template, Value};
use serde_json::{Value as Json, json};

use crate::manifests::parse;

/// Helm's template functions that the chart uses.
const FUNCTIONS: [(&str, Func); 11] = [
    ("quote", quote),
    ("default", default),
    ("required", required),
    ("fail", fail),
    ("toYaml", to_yaml),
    ("nindent", nindent),
    ("include", include),
    ("trunc", trunc),
    ("trimSuffix", trim_suffix),
    ("splitList", split_list),
    ("last", last),
];

thread_local! {
    /// Templates that other templates include.
    static HELPERS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Returns the output of `helm template NAME CHART --namespace NAMESPACE` with these values, by file.
///
/// # Errors
/// Returns the error of a template.
pub(crate) fn render(
    chart: &Path,
    [name, namespace]: [&str; 2],
    values: &Json,
) -> Result<HashMap<String, String>, String> {
    let read = |file: &str| fs::read_to_string(chart.join(file)).unwrap();
    let yaml = |file: &str| parse(&read(file), &chart.join(file)).remove(0);
    let about = yaml("Chart.yaml");
    let mut all = yaml("values.yaml");
    merge(&mut all, values);
    let context = json!({
        "Values": all,
        "Release": {"Name": name, "Namespace": namespace, "Service": "Helm"},
        "Chart": {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
    });
    HELPERS.set(read("templates/_helpers.tpl"));
    let mut rendered = HashMap::new();
    for entry in fs::read_dir(chart.join("templates")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if !file.starts_with('_') {
            let text = render_text(&read(&format!("templates/{file}")), value(&context));
            rendered.insert(file.clone(), text.map_err(|error| format!("{file}: {error}"))?);
        }
    }
    Ok(rendered)
}

/// Merges values as Helm does: field by field, lists as a whole; null removes a field.
fn merge(base: &mut Json, over: &Json) {
    match (base, over) {
        (Json::Object(base), Json::Object(over)) => {
            over.iter().for_each(|(key, value)| merge(base.entry(key).or_insert(Json::Null), value));
            base.retain(|_, value| !value.is_null());
        }
        (base, over) => *base = over.clone(),
    }
}

fn render_text(text: &str, data: Value) -> Result<String, String> {
    let mut template = Template::default();
    template.add_funcs(&FUNCTIONS);
    let helpers = HELPERS.with_borrow(Clone::clone);
    template.parse(format!("{helpers}{{{{- /* */ -}}}}{text}")).map_err(|error| error.to_string())?;
    template.render(&Context::from(data)).map_err(|error| error.to_string())
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => number.as_i64().expect("values have whole numbers").into(),
        Json::String(text) => text.into(),
        Json::Array(items) => Value::Array(items.iter().map(value).collect()),
        Json::Object(fields) => {
            Value::Map(fields.iter().map(|(key, field)| (key.clone(), value(field))).collect())
        }
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => number.as_i64().expect("values have whole numbers").into(),
        Value::String(text) => text.clone().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Map(fields) | Value::Object(fields) => {
            fields.iter().map(|(key, field)| (key.clone(), json(field))).collect()
        }
        _ => Json::Null,
    }
}

type Given = Result<Value, FuncError>;

fn error(text: impl Into<String>) -> FuncError {
    FuncError::Generic(text.into())
}

fn text(value: &Value) -> String {
    match json(value) {
        Json::String(text) => text,
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// Returns true for Go's zero values.
fn is_empty(value: &Value) -> bool {
    match json(value) {
        Json::Null => true,
        Json::Bool(flag) => !flag,
        Json::Number(number) => number.as_i64() == Some(0),
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(fields) => fields.is_empty(),
    }
}

fn args<const N: usize>(args: &[Value]) -> Result<&[Value; N], FuncError> {
    args.try_into().map_err(|_| error(format!("{} arguments, not {N}", args.len())))
}

fn quote(all: &[Value]) -> Given {
    let [value] = args(all)?;
    Ok(Json::String(text(value)).to_string().into())
}

fn default(all: &[Value]) -> Given {
    let [default, value] = args(all)?;
    Ok(if is_empty(value) { default } else { value }.clone())
}

fn required(all: &[Value]) -> Given {
    let [message, value] = args(all)?;
    if text(value).is_empty() { Err(error(text(message))) } else { Ok(value.clone()) }
}

fn fail(all: &[Value]) -> Given {
    let [message] = args(all)?;
    Err(error(text(message)))
}

fn to_yaml(all: &[Value]) -> Given {
    let [value] = args(all)?;
    let yaml = serde_saphyr::to_string(&json(value)).map_err(|e| error(e.to_string()))?;
    Ok(yaml.trim_end().into())
}

fn nindent(all: &[Value]) -> Given {
    let [width, value] = args(all)?;
    let width = json(width).as_u64().ok_or_else(|| error("no width"))? as usize;
    let lines = text(value);
    let lines = lines.split('\n').map(|line| format!("\n{:width$}{line}", ""));
    Ok(lines.collect::<String>().into())
}

fn include(all: &[Value]) -> Given {
    let [name, data] = args(all)?;
    let call = format!("{{{{ template {} . }}}}", Json::String(text(name)));
    render_text(&call, data.clone()).map(Value::from).map_err(error)
}

fn trunc(all: &[Value]) -> Given {
    let [length, value] = args(all)?;
    let length = json(length).as_u64().ok_or_else(|| error("no length"))? as usize;
    Ok(text(value).chars().take(length).collect::<String>().into())
}

fn trim_suffix(all: &[Value]) -> Given {
    let [suffix, value] = args(all)?;
    let value = text(value);
    Ok(value.strip_suffix(&text(suffix)).unwrap_or(&value).into())
}

fn split_list(all: &[Value]) -> Given {
    let [separator, value] = args(all)?;
    let (separator, value) = (text(separator), text(value));
    Ok(Value::Array(value.split(&separator).map(Value::from).collect()))
}

fn last(all: &[Value]) -> Given {
    let [list] = args(all)?;
    match list {
        Value::Array(items) => Ok(items.last().cloned().unwrap_or(Value::Nil)),
        _ => Err(error("not a list")),
    }
}
