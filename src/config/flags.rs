//! The command line's flags: kube-proxy's, with its words and syntax, and ours.
//!
//! As with kube-proxy's flag library: `_` in a flag's name is `-`; a value may begin with `-`; a boolean
//! takes its value only after `=`; the last of several wins, except that lists and feature gates add up.
//!
//! What holds beside `--config` is upstream's rule, which its help tells in part only. The loaded file
//! replaces *everything* that flags had filled in, so every flag that has a field in the file is void.
//! Afterwards the logging flags and `--hostname-override` are applied over the file; and `--master`,
//! `--cleanup`, `--init-only` and `--write-config-to` have no field there. Where a void flag is given,
//! kube-proxy says nothing; here there is a [warning](Warning::IgnoredFlag). Ours beside those:
//! `--manifests`, `--once` and `--mode` count, while `--proxy-mode` is void as upstream. The subcommands
//! are ours, and so is their rule: there every flag beats the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::error::{ConfigError, Origin, Warning};
use super::origins::Origins;
use super::setting::{Flag, Setting, WithConfigFile};
use super::setting_table::{SUBJECTS, settings};
use super::settings::Settings;

/// A flag of the table for each name, as arguments for clap, under the headings of the table.
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

/// Turns `_` into `-` in the names of flags, up to a lone `--`.
pub(super) fn with_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut ended = false;
    let normalised = arguments.into_iter().map(|argument| {
        ended |= argument == "--";
        match argument.to_str().filter(|text| !ended && text.starts_with("--") && text.contains('_')) {
            Some(text) => {
                let (name, value) = text.find('=').map_or((text, ""), |at| text.split_at(at));
                format!("{}{value}", name.replace('_', "-")).into()
            }
            None => argument,
        }
    });
    normalised.collect()
}

/// The last value of a flag, if it was given.
pub(super) fn last<'a>(matches: &'a ArgMatches, flag: &str) -> Option<&'a str> {
    let given = matches.value_source(flag) == Some(ValueSource::CommandLine);
    given.then(|| matches.get_many::<String>(flag)?.next_back().map(String::as_str)).flatten()
}

/// Every flag with its value on a command line, or its default, in the order of their names: what `/flagz` shows.
pub(super) fn values(matches: &ArgMatches) -> Vec<(String, String)> {
    let (mut given, mut defaults) = (Settings::default(), Settings::default());
    apply(matches, FlagPrecedence::FlagsOverride, &mut given, &mut Origins::default());
    let mut values = BTreeMap::new();
    for (setting, flag) in settings().filter_map(|setting| Some((setting, setting.flag?))) {
        let is_given = last(matches, flag.name).is_some();
        // Flags that fill the same place must not show each other's value.
        let from = if is_given { &mut given } else { &mut defaults };
        if is_given || !flag.hidden {
            values.insert(flag.name.to_owned(), (setting.field_ref)(from).to_string());
        }
    }
    values.into_iter().collect()
}

/// Whose rule tells what becomes of flags beside a configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagPrecedence {
    /// Those that have a field in the file are void.
    KubeProxy,
    /// Every flag beats the file.
    FlagsOverride,
}

/// Fills in the flags that were given.
pub(super) fn apply(
    matches: &ArgMatches,
    rule: FlagPrecedence,
    settings_: &mut Settings,
    origins: &mut Origins,
) -> (Vec<ConfigError>, Vec<Warning>) {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let mut told = BTreeSet::new();
    for (setting, flag) in settings().filter_map(|setting| Some((setting, setting.flag?))) {
        // Subcommands do not have the daemon's own flags.
        let known = matches.try_contains_id(flag.name).is_ok();
        if !known || matches.value_source(flag.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        if let Some(file) = origins.file().filter(|_| rule == FlagPrecedence::KubeProxy)
            && flag.with_config_file == WithConfigFile::Ignored
        {
            if told.insert(flag.name) {
                let (path, field) = (file.path.clone(), file.language.field(setting));
                warnings.push(Warning::IgnoredFlag { flag: flag.name, path, field });
            }
            continue;
        }
        let values: Vec<String> = matches.get_many(flag.name).into_iter().flatten().cloned().collect();
        match (setting.field_ref)(settings_).read_flag(&values) {
            Ok(()) => origins.by_flag(setting.id(), flag.name),
            Err(_) if !told.insert(flag.name) => {}
            Err(expected) => errors.push(ConfigError::Invalid {
                origin: Origin::Flag(flag.name),
                value: format!("{:?}", values.join(",")),
                expected: expected.to_owned(),
            }),
        }
    }
    (errors, warnings)
}

/// Warnings for what was said without having any effect here. A file may well spell out kube-proxy's
/// defaults, as those do that its own tools write; that is not worth a word.
pub(super) fn without_effect(settings_: &Settings, origins: &Origins) -> Vec<Warning> {
    let (mut given, mut defaults) = (settings_.clone(), Settings::default());
    let rows = settings().filter_map(|setting| Some((setting, setting.unused?)));
    let told = rows.filter(|(setting, _)| {
        let changed =
            (setting.field_ref)(&mut given).to_string() != (setting.field_ref)(&mut defaults).to_string();
        origins.is_flag(setting.id()) || changed && !origins.is_default(setting.id())
    });
    told.map(|(setting, why)| Warning::NoEffect { origin: origins.origin(setting.id()), why }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag_named(name: &str) -> Option<(&'static Setting, Flag)> {
        settings().find_map(|setting| Some((setting, setting.flag.filter(|flag| flag.name == name)?)))
    }

    #[test]
    fn every_flag_of_kube_proxy_is_there_as_it_is_there() {
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
    fn underscores() {
        let rows = [
            (vec!["--proxy_mode", "ipvs"], vec!["--proxy-mode", "ipvs"]),
            (vec!["--proxy_mode=a_b"], vec!["--proxy-mode=a_b"]),
            (vec!["a_b", "-v_2"], vec!["a_b", "-v_2"]),
            (vec!["--", "--a_b"], vec!["--", "--a_b"]),
        ];
        for (given, expected) in rows {
            let given = given.into_iter().map(OsString::from);
            assert_eq!(with_dashes(given), expected);
        }
    }
}
