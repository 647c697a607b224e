//! Parts about the configuration: the effective settings, and where each one was set.

use std::io::Write;

use super::part::{Part, PartError};
use crate::config::Invocation;
use crate::version;

/// Returns the parts.
pub(super) fn parts(invocation: &Invocation) -> Vec<Part> {
    let settings = invocation.toml_configuration();
    let origins = invocation.setting_origins();
    let errors = invocation.config.as_ref().err().map(ToString::to_string);
    vec![
        Part::new("version.txt", "version and commit of this program", |out| {
            Ok(writeln!(out, "{}", version::version())?)
        }),
        Part::new("configuration/settings.toml", "effective configuration of this command", move |out| {
            Ok(out.write_all(settings.as_bytes())?)
        }),
        Part::new(
            "configuration/origins.txt",
            "settings that are not defaults, and where they were set",
            move |out| {
                if origins.is_empty() {
                    return Err(PartError::not_applicable("all settings have their defaults"));
                }
                Ok(origins.iter().try_for_each(|line| writeln!(out, "{line}"))?)
            },
        ),
        Part::new("configuration/errors.txt", "errors of the configuration", move |out| match errors {
            None => Err(PartError::not_applicable("the configuration is valid")),
            Some(errors) => Ok(writeln!(out, "{errors}")?),
        }),
    ]
}
