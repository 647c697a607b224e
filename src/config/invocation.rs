//! From the command line to a command and its configuration.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::command::{self, Cleanup, Command, Daemon};
use super::configuration_file;
use super::error::{ConfigError, ConfigErrors, Warning};
use super::flags::{self, FlagPrecedence};
use super::kube_proxy_configuration;
use super::origins::Origins;
use super::settings::{HEALTHZ_PORT, METRICS_PORT, Settings};
use super::validated::Config;
use super::validation::{Validated, validate};
use super::{setting_table, toml_file};

/// Prints the help, or what is wrong, and ends the process.
fn exit(error: &clap::Error) -> ! {
    let complaint = error.use_stderr();
    // A reader that has seen enough is no failure, and a complaint has no other place.
    match error.print() {
        Err(cause) if !complaint && cause.kind() != io::ErrorKind::BrokenPipe => {
            crate::logging::final_message(&format!("portcullis: cannot print: {cause}"));
            std::process::exit(2)
        }
        _ => std::process::exit(error.exit_code()),
    }
}

/// What a command line comes to.
#[derive(Debug)]
pub struct Invocation {
    /// What to do.
    pub command: Command,
    /// With which settings. [`Command::Lab`] and those that only print about the program take none, and
    /// have the defaults.
    pub config: Result<Config, ConfigErrors>,
    /// For the log, one line each.
    pub warnings: Vec<Warning>,
    /// The file of `--config`. kube-proxy ends when it changes, for its supervisor to start it anew.
    pub config_file: Option<PathBuf>,
    settings: Settings,
}

impl Invocation {
    /// Reads the process' command line, and the file that `--config` names. Prints the help, or what is
    /// wrong with the command line, and ends the process where there is nothing else to do.
    pub fn parse() -> Self {
        Self::from_arguments(std::env::args_os(), |path| std::fs::read_to_string(path))
            .unwrap_or_else(|error| exit(&error))
    }

    /// The same for any command line (the program's name first) and any way of reading a file.
    ///
    /// # Errors
    /// If the command line has another form than flags and commands have, and for `--help`. A value that
    /// can't be used is no such error but one in [`Invocation::config`], beside all others.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
        read_file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, clap::Error> {
        let matches = command::parser().try_get_matches_from(flags::with_dashes(arguments))?;
        Ok(match command::subcommand(&matches)? {
            Some((command, Some(flags))) => {
                Self::configured(flags, FlagPrecedence::FlagsOverride, read_file, |settings| {
                    if let Command::Migrate(migrate) = &command {
                        settings.mode = migrate.to.name().to_owned();
                    }
                    match command {
                        Command::Cleanup(_) => Command::Cleanup(Cleanup { force: settings.actions.force }),
                        command => command,
                    }
                })
            }
            Some((command, None)) => Self::without_settings(command),
            None if flags::last(&matches, "version").is_some_and(|value| value != "false") => {
                Self::without_settings(Command::Version)
            }
            None => Self::configured(&matches, FlagPrecedence::KubeProxy, read_file, |settings| {
                root_command(settings)
            }),
        })
    }

    /// Every flag of the daemon with its value on this command line, or its default, for `/flagz`.
    pub fn flag_values(arguments: impl IntoIterator<Item = OsString>) -> Vec<(String, String)> {
        let matches = command::parser().try_get_matches_from(flags::with_dashes(arguments));
        matches.map(|matches| flags::values(&matches)).unwrap_or_default()
    }

    /// The settings as a `KubeProxyConfiguration` in YAML, for [`Command::WriteConfig`]. With no flags, it
    /// is to the byte what kube-proxy v1.36 writes.
    pub fn kube_proxy_configuration(&self) -> String {
        kube_proxy_configuration::write(&self.settings)
    }

    /// The settings for the file of [`Command::WriteConfig`], and a warning where its language is not the one that its name
    /// promises: a `KubeProxyConfiguration`, or TOML if its name ends so or a setting would be lost otherwise.
    pub fn configuration_for(&self, path: &Path) -> (String, Option<Warning>) {
        if path.extension().is_some_and(|extension| extension == "toml") {
            return (toml_file::write(&self.settings), None);
        }
        let (mut given, mut defaults) = (self.settings.clone(), Settings::default());
        let lost =
            setting_table::settings().filter(|setting| setting.yaml.is_none() && setting.toml.is_some());
        let lost = lost.filter(|setting| {
            (setting.field_ref)(&mut given).to_string() != (setting.field_ref)(&mut defaults).to_string()
        });
        let lost: Vec<&str> = lost.filter_map(|setting| setting.toml).collect();
        if lost.is_empty() {
            return (self.kube_proxy_configuration(), None);
        }
        let warning = Warning::WrittenAsToml { path: path.to_owned(), fields: lost.join(", ") };
        (toml_file::write(&self.settings), Some(warning))
    }

    fn without_settings(command: Command) -> Self {
        Self {
            command,
            config: Ok(Config::default()),
            warnings: Vec::new(),
            config_file: None,
            settings: Settings::default(),
        }
    }

    fn configured(
        matches: &ArgMatches,
        rule: FlagPrecedence,
        read_file: impl Fn(&Path) -> io::Result<String>,
        command: impl FnOnce(&mut Settings) -> Command,
    ) -> Self {
        let config_file = flags::last(matches, "config").filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut origins = Origins::default();
        let (mut settings, mut errors) = match &config_file {
            None => (Settings::default(), Vec::new()),
            Some(path) => match read_file(path) {
                Ok(text) => configuration_file::read(path, &text, &mut origins),
                Err(source) => {
                    (Settings::default(), vec![ConfigError::Unreadable { path: path.clone(), source }])
                }
            },
        };
        let (mistakes, more) = flags::apply(matches, rule, &mut settings, &mut origins);
        let mut warnings = origins.take_warnings();
        warnings.extend(more);
        errors.extend(mistakes);
        if config_file.is_none() {
            complete_from_deprecated_ports(&mut settings);
        }
        let command = command(&mut settings);
        warnings.extend(flags::without_effect(&settings, &origins));
        let Validated { config, errors: more, warnings: told } = validate(&settings, &origins);
        errors.extend(more);
        warnings.extend(told);
        Self { command, config: ConfigErrors::unless_empty(errors, config), warnings, config_file, settings }
    }
}

/// Upstream's order where several are asked for.
fn root_command(settings: &Settings) -> Command {
    let actions = &settings.actions;
    if !actions.write_config_to.is_empty() {
        Command::WriteConfig(actions.write_config_to.clone().into())
    } else if actions.cleanup {
        Command::Cleanup(Cleanup { force: actions.force })
    } else {
        Command::Daemon(Daemon { once: actions.once, init_only: actions.init_only, force: actions.force })
    }
}

/// Without a configuration file, `--healthz-port` and `--metrics-port` complete addresses that have no
/// port, and switch the servers off with 0.
fn complete_from_deprecated_ports(settings: &mut Settings) {
    let ports = (settings.compatibility.healthz_port, settings.compatibility.metrics_port);
    let addresses = [
        (&mut settings.healthz_bind_address, ports.0, HEALTHZ_PORT),
        (&mut settings.metrics_bind_address, ports.1, METRICS_PORT),
    ];
    for (address, port, usual) in addresses {
        if port == 0 {
            address.clear();
        } else {
            kube_proxy_configuration::append_port(address, u16::try_from(port).unwrap_or(usual));
        }
    }
}

impl Default for Config {
    /// What holds when neither flags nor a file say anything.
    fn default() -> Self {
        validate(&Settings::default(), &Origins::default()).config
    }
}
