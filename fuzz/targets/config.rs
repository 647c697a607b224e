//! Configuration files and command lines.

use std::ffi::OsString;
use std::path::Path;

use portcullis::config::{ConfigError, Invocation, Origin};

/// Reads a `KubeProxyConfiguration`, or a ConfigMap that contains one.
pub(crate) fn kube_proxy_file(input: &[u8]) {
    file(input, "config.yaml");
}

/// Reads a TOML file.
pub(crate) fn toml_file(input: &[u8]) {
    file(input, "config.toml");
}

fn file(input: &[u8], name: &str) {
    let Ok(text) = str::from_utf8(input) else { return };
    let invocation = invoke(name, text);
    invocation.warnings.iter().for_each(|warning| assert!(!warning.to_string().is_empty()));
    if let Err(errors) = &invocation.config {
        // In YAML, a carriage return alone also ends a line.
        let lines = text.matches(['\n', '\r']).count() + 1;
        for error in errors.iter() {
            assert!(has_position(error, lines), "{error:?} of {lines} lines");
            assert!(!error.to_string().is_empty());
        }
        return;
    }
    // What is written is read as the same configuration.
    let (written, _) = invocation.configuration_for(Path::new(name));
    let again = invoke(name, &written);
    if let Err(errors) = &again.config {
        panic!("a written configuration is invalid: {errors}\n{written}");
    }
    assert_eq!(again.configuration_for(Path::new(name)).0, written);
}

fn invoke(name: &str, text: &str) -> Invocation {
    let arguments = ["portcullis".to_owned(), format!("--config={name}")];
    Invocation::from_arguments(arguments.map(OsString::from), |_| Ok(text.to_owned())).unwrap()
}

/// Returns true if the error names a line of the file, or a flag or default that is in no file.
fn has_position(error: &ConfigError, lines: usize) -> bool {
    let is_line = |line: usize| (1..=lines).contains(&line);
    let is_known = |origin: &Origin| match origin {
        Origin::File { line, field, .. } => is_line(*line) && !field.is_empty(),
        Origin::Flag(_) | Origin::Default(_) => true,
    };
    match error {
        ConfigError::Unreadable { .. } => true,
        ConfigError::Malformed { line, message, .. } => line.is_none_or(is_line) && !message.is_empty(),
        ConfigError::WrongKind { line, .. } => is_line(*line),
        ConfigError::UnknownField { origin, .. } | ConfigError::Invalid { origin, .. } => is_known(origin),
        ConfigError::Duplicate { origin, first } => is_known(origin) && is_line(*first),
    }
}

/// Parses a command line with an argument per line.
pub(crate) fn flags(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let arguments = || ["portcullis"].into_iter().chain(text.split('\n')).map(OsString::from);
    match Invocation::from_arguments(arguments(), |_| Ok(String::new())) {
        Ok(invocation) => {
            if let Err(errors) = &invocation.config {
                assert!(errors.iter().next().is_some() && !errors.to_string().is_empty());
            }
            let _ = (invocation.kube_proxy_configuration(), Invocation::flag_values(arguments()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
