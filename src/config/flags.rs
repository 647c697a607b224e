//! Command-line flags: kube-proxy's, with their names and syntax, and Portcullis' own.
//!
//! As in kube-proxy's flag library: `_` in a flag name is `-`; a value may begin with `-`; a boolean
//! takes its value only after `=`; the last of several values wins, except that lists and feature gates are merged.
//!
//! Precedence over `--config` follows upstream, whose help documents only part of it. The loaded file
//! replaces *everything* that flags had set, so every flag that has a field in the file is ignored.
//! Then the logging flags and `--hostname-override` are applied over the file. `--master`,
//! `--cleanup`, `--init-only` and `--write-config-to` have no field in the file, so they always apply. kube-proxy ignores
//! flags silently; Portcullis [warns](Warning::IgnoredFlag). Of Portcullis' own flags,
//! `--manifests`, `--once` and `--mode` override the file, while `--proxy-mode` is ignored as upstream. In
//! subcommands, which kube-proxy does not have, every flag overrides the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::error::{ConfigError, Origin, Warning};
use super::origins::Origins;
use super::setting::{Flag, Setting, WithConfigFile};
use super::setting_table::{SUBJECTS, settings};
use super::settings::Settings;

/// Returns the flags of the table as clap arguments, one per name, with the headings of the table.
pub(super) fn arguments() -> Vec<Arg> {
    let mut seen = BTreeSet::new();
    let mut arguments = Vec::new();
    for (heading, rows) in SUBJECTS {
        for setting in *rows {
            let Some(flag) = setting.flag.filter(|flag| seen.insert(flag.name)) else { continue };
            arguments.push(argument(setting, flag).help_heading(*heading));
        }
    }
    arguments
}

fn argument(setting: &Setting, flag: Flag) -> Arg {
    let mut defaults = Settings::default();
    let field_ref = (setting.field_ref)(&mut defaults);
    let mut argument = Arg::new(flag.name)
        .long(flag.name)
        .value_name(flag.type_name.unwrap_or_else(|| field_ref.go_type()))
        .action(ArgAction::Append)
        .hide(flag.hidden);
    argument = match field_ref.is_zero() {
        true => argument.help(flag.help),
        false => argument.help(format!("{} [default: {field_ref}]", flag.help)),
    };
    if let Some(short) = flag.short {
        argument = argument.short(short);
    }
    match field_ref.is_bool() {
        true => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        false => argument.num_args(1).allow_hyphen_values(true),
    }
}

/// Replaces `_` by `-` in flag names, up to a `--` argument.
pub(super) fn normalize_names(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    let normalized = arguments.into_iter().map(|argument| {
        ended |= argument == "--";
        match argument.to_str().filter(|text| !ended && text.starts_with("--") && text.contains('_')) {
            Some(text) => {
                let (name, value) = text.find('=').map_or((text, ""), |at| text.split_at(at));
                format!("{}{value}", name.replace('_', "-")).into()
            }
            None => argument,
        }
    });
    normalized.collect()
}

/// Returns the last value of a flag, if it was given.
pub(super) fn last<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a str> {
    let given = matches.value_source(flag) == Some(ValueSource::CommandLine);
    given.then(|| matches.get_many::<String>(flag)?.next_back().map(String::as_str)).flatten()
}

/// Returns every flag with its value or default, sorted by name, for `/flagz`.
pub(super) fn values(matches: &ArgMatches) -> Vec<(String, String)> {
    let (mut given, mut defaults) = (Settings::default(), Settings::default());
    apply(matches, FlagPrecedence::FlagsOverride, &mut given, &mut Origins::default());
    let mut values = BTreeMap::new();
    for (setting, flag) in settings().filter_map(|setting| Some((setting, setting.flag?))) {
        let is_given = last(matches, flag.name).is_some();
        // Flags that set the same field must not show each other's value.
        let from = if is_given { &mut given } else { &mut defaults };
        if is_given || !flag.hidden {
            values.insert(flag.name.to_owned(), (setting.field_ref)(from).to_string());
        }
    }
    values.into_iter().collect()
}

/// Precedence between flags and a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagPrecedence {
    /// Flags that have a field in the file are ignored.
    KubeProxy,
    /// Every flag overrides the file.
    FlagsOverride,
}

/// Applies the flags that were given to the settings.
pub(super) fn apply(
    matches: &ArgMatches,
    rule: FlagPrecedence,
    settings_: &mut Settings,
    origins: &mut Origins,
) -> (Vec<ConfigError>, Vec<Warning>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let mut reported = BTreeSet::new();
    for (setting, flag) in settings().filter_map(|setting| Some((setting, setting.flag?))) {
        // Subcommands do not have the daemon-only flags.
        let known = matches.try_contains_id(flag.name).is_ok();
        if !known || matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        if let Some(file) = origins.file().filter(|_| rule == FlagPrecedence::KubeProxy)
            && flag.with_config_file == WithConfigFile::Ignored
        {
            if reported.insert(flag.name) {
                let (path, field) = (file.path.clone(), file.format.field(setting));
                warnings.push(Warning::IgnoredFlag { flag: flag.name, path, field });
            }
            continue;
        }
        let values: Vec<String> = matches.get_many(flag.name).into_iter().flatten().cloned().collect();
        match (setting.field_ref)(settings_).read_flag(&values) {
            Ok(()) => origins.by_flag(setting.id(), flag.name),
            Err(_) if !reported.insert(flag.name) => {}
            Err(expected) => errors.push(ConfigError::Invalid {
                origin: Origin::Flag(flag.name),
                value: format!("{:?}", values.join(",")),
                expected: expected.to_owned(),
            }),
        }
    }
    (errors, warnings)
}

/// Returns warnings for settings without effect. A file may spell out kube-proxy's defaults, as files written by its
/// tools do; that is no reason for a warning.
pub(super) fn without_effect(settings_: &Settings, origins: &Origins) -> Vec<Warning> {
    let (mut given, mut defaults) = (settings_.clone(), Settings::default());
    let rows = settings().filter_map(|setting| Some((setting, setting.unused?)));
    let warned = rows.filter(|(setting, _)| {
        let changed =
            (setting.field_ref)(&mut given).to_string() != (setting.field_ref)(&mut defaults).to_string();
        origins.is_flag(setting.id()) || changed && !origins.is_default(setting.id())
    });
    warned.map(|(setting, why)| Warning::NoEffect { origin: origins.origin(setting.id()), why }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag_named(name: &str) -> Option<(&'static Setting, Flag)> {
        settings().find_map(|setting| Some((setting, setting.flag.filter(|flag| flag.name == name)?)))
    }

    #[test]
    fn every_flag_of_kube_proxy_exists_with_its_name_type_and_default() {
        let recorded = include_str!("../../fixtures/kube-proxy/flags.tsv");
        let mut rows = 0;
        for line in recorded.lines().skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [name, short, type_name, default, note] = columns[..] else {
                panic!("five columns: {line:?}")
            };
            rows += 1;
            if name == "help" {
                continue; // clap's own, with the same names
            }
            let (setting, flag) = flag_named(name).unwrap_or_else(|| panic!("--{name} is missing"));
            let mut defaults = Settings::default();
            let field_ref = (setting.field_ref)(&mut defaults);
            let shown = if field_ref.is_zero() { String::new() } else { field_ref.to_string() };
            assert_eq!(flag.short.map(String::from).unwrap_or_default(), short, "short form of --{name}");
            assert_eq!(flag.type_name.unwrap_or_else(|| field_ref.go_type()), type_name, "type of --{name}");
            assert_eq!(shown, default.trim_matches('"'), "default of --{name}");
            if note == "ignored with --config" {
                assert_eq!(flag.with_config_file, WithConfigFile::Ignored, "--{name}");
            }
            assert!(!flag.hidden, "--{name}");
        }
        assert_eq!(rows, 53);
    }

    #[test]
    fn every_shown_flag_has_help() {
        for argument in arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "--{}", argument.get_id());
        }
    }

    #[test]
    fn underscores_in_flag_names_are_dashes() {
        let rows = [
            (vec!["--proxy_mode", "ipvs"], vec!["--proxy-mode", "ipvs"]),
            (vec!["--proxy_mode=a_b"], vec!["--proxy-mode=a_b"]),
            (vec!["a_b", "-v_2"], vec!["a_b", "-v_2"]),
            (vec!["--", "--a_b"], vec!["--", "--a_b"]),
        ];
        for (given, expected) in rows {
            let given = given.into_iter().map(OsString::from);
            assert_eq!(normalize_names(given), expected);
        }
    }
}
