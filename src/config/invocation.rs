//! Parsed command line: the command, its configuration and warnings.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::ArgMatches;

use super::command::{self, Cleanup, Command, Daemon, OutputFormat};
use super::configuration_file;
use super::error::{ConfigError, ConfigErrors, Origin, Warning};
use super::flags::{self, FlagPrecedence};
use super::kube_proxy_configuration;
use super::origins::Origins;
use super::settings::{HEALTHZ_PORT, METRICS_PORT, Settings};
use super::validated::{Config, KubectlCredentials, Logging, Source};
use super::validation::{Validated, validate};
use super::{setting_table, toml_file};
use crate::bounded_file::{self, MAX_CONFIGURATION};

/// Prints the help or the error of clap, and exits.
pub(crate) fn exit(error: &clap::Error) -> ! {
    let is_error = error.use_stderr();
    // A closed pipe is not a failure, and a failure to print an error cannot be reported.
    match error.print() {
        Err(cause) if !is_error && cause.kind() != io::ErrorKind::BrokenPipe => {
            crate::logging::final_message(&format!("portcullis: cannot print: {cause}"));
            std::process::exit(2)
        }
        _ => std::process::exit(error.exit_code()),
    }
}

/// Reads a configuration file.
pub(crate) fn read_file(path: &Path) -> io::Result<String> {
    bounded_file::read_to_string(path, MAX_CONFIGURATION)
}

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation {
    /// The command.
    pub command: Command,
    /// Its configuration. [`Command::Lab`] and commands that only print about the program have no settings; they
    /// get the defaults.
    pub config: Result<Config, ConfigErrors>,
    /// Warnings for the log, one line each.
    pub warnings: Vec<Warning>,
    /// The file of `--config`. kube-proxy exits when it changes, so that its supervisor restarts it.
    pub config_file: Option<PathBuf>,
    /// The configuration with defaults in place of invalid settings.
    pub(crate) without_invalid: Config,
    pub(super) settings: Settings,
    pub(super) origins: Origins,
}

impl Invocation {
    /// Parses the command line of the process and reads the file of `--config`. Exits after printing the help or a
    /// usage error.
    pub fn parse() -> Self {
        Self::from_arguments(std::env::args_os(), read_file).unwrap_or_else(|error| exit(&error))
    }

    /// Parses a command line, including the program name; files are read with `read_file`.
    ///
    /// # Errors
    /// Returns clap's error for a malformed command line and for `--help`. An invalid value is an error in
    /// [`Invocation::config`] instead, so that all of them are reported.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
        read_file: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, clap::Error> {
        let matches = command::parser().try_get_matches_from(flags::normalize_names(arguments))?;
        Ok(match command::subcommand(&matches)? {
            Some((command, Some(flags))) => {
                Self::configured(flags, FlagPrecedence::FlagsOverride, read_file, |settings| {
                    if let Command::Migrate(migrate) = &command {
                        settings.mode = migrate.to.name().to_owned();
                    }
                    match command {
                        Command::Cleanup(cleanup) => {
                            Command::Cleanup(Cleanup { force: settings.actions.force, ..cleanup })
                        }
                        command => command,
                    }
                })
            }
            Some((command, None)) => Self::without_settings(command),
            None if flags::last(&matches, "version").is_some_and(|value| value != "false") => {
                Self::without_settings(Command::Version(OutputFormat::Text))
            }
            None => Self::configured(&matches, FlagPrecedence::KubeProxy, read_file, |settings| {
                root_command(settings)
            }),
        })
    }

    /// Returns every flag of the daemon with its value on this command line, or its default, for `/flagz`.
    pub fn flag_values(arguments: impl IntoIterator<Item = OsString>) -> Vec<(String, String)> {
        let matches = command::parser().try_get_matches_from(flags::normalize_names(arguments));
        matches.map(|matches| flags::values(&matches)).unwrap_or_default()
    }

    /// Returns the settings as a `KubeProxyConfiguration` in YAML, for [`Command::WriteConfig`]. Without flags, the
    /// output is byte-identical to that of kube-proxy v1.36.
    pub fn kube_proxy_configuration(&self) -> String {
        kube_proxy_configuration::write(&self.settings)
    }

    /// Returns the logging of a command: the verbosity of a configuration file is that of the daemon.
    pub(crate) fn command_logging(&self, config: &Config) -> Logging {
        let verbosity = if self.origins.is_flag("logging.verbosity") { config.logging.verbosity } else { 0 };
        Logging { verbosity, ..config.logging }
    }

    /// Returns the settings as Portcullis TOML.
    pub fn toml_configuration(&self) -> String {
        toml_file::write(&self.settings)
    }

    /// Returns the settings that are not defaults, a line each with the place where it was set.
    pub fn setting_origins(&self) -> Vec<String> {
        let mut settings = self.settings.clone();
        let given = setting_table::settings().filter(|setting| !self.origins.is_default(setting.id()));
        given
            .map(|setting| {
                let value = (setting.field_ref)(&mut settings).to_string();
                format!("{} = {value}  ({})", setting.id(), self.origins.origin(setting.id()))
            })
            .collect()
    }

    /// Returns the content of the file of [`Command::WriteConfig`]: a `KubeProxyConfiguration`, or TOML if the file name
    /// ends in `.toml` or a setting has no field in a `KubeProxyConfiguration`, which is a warning.
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
            without_invalid: Config::default(),
            warnings: Vec::new(),
            config_file: None,
            settings: Settings::default(),
            origins: Origins::default(),
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
        let Validated { mut config, errors: more, warnings: more_warnings } = validate(&settings, &origins);
        errors.extend(more);
        errors.extend(use_kubectl_credentials(&mut config, command::kubectl_credentials(matches)));
        warnings.extend(more_warnings);
        Self {
            command,
            without_invalid: config.clone(),
            config: ConfigErrors::unless_empty(errors, config),
            warnings,
            config_file,
            settings,
            origins,
        }
    }
}

/// Sets the credentials of a command. `--context` has no meaning for manifests.
fn use_kubectl_credentials(
    config: &mut Config,
    credentials: Option<KubectlCredentials>,
) -> Option<ConfigError> {
    match (&mut config.source, credentials) {
        (Source::ApiServer(api), credentials) => api.kubectl = credentials,
        (Source::Manifests(_), Some(KubectlCredentials { context: Some(context) })) => {
            return Some(ConfigError::Invalid {
                origin: Origin::Flag("context"),
                value: format!("{context:?}"),
                expected: "either manifests or an API server, not both".to_owned(),
            });
        }
        (Source::Manifests(_), _) => {}
    }
    None
}

/// Selects the command, in upstream's order of precedence if several are requested.
pub(super) fn root_command(settings: &Settings) -> Command {
    let actions = &settings.actions;
    if !actions.write_config_to.is_empty() {
        Command::WriteConfig(actions.write_config_to.clone().into())
    } else if actions.cleanup {
        Command::Cleanup(Cleanup { force: actions.force, ..Cleanup::default() })
    } else {
        Command::Daemon(Daemon { once: actions.once, init_only: actions.init_only, force: actions.force })
    }
}

/// Applies `--healthz-port` and `--metrics-port`: without a configuration file, they complete addresses without a
/// port, and 0 disables the servers.
pub(super) fn complete_from_deprecated_ports(settings: &mut Settings) {
    let ports = (settings.compatibility.healthz_port, settings.compatibility.metrics_port);
    let addresses = [
        (&mut settings.healthz_bind_address, ports.0, HEALTHZ_PORT),
        (&mut settings.metrics_bind_address, ports.1, METRICS_PORT),
    ];
    for (address, port, default) in addresses {
        if port == 0 {
            address.clear();
        } else {
            kube_proxy_configuration::append_port(address, u16::try_from(port).unwrap_or(default));
        }
    }
}

impl Default for Config {
    /// Returns the configuration without flags and files.
    fn default() -> Self {
        validate(&Settings::default(), &Origins::default()).config
    }
}
