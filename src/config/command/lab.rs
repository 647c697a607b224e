//! Arguments of `portcullis lab`.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, builder::OsStringValueParser};

/// Returns the subcommand, which passes all arguments on to `portcullis-lab`, `--help` included.
pub(super) fn subcommand() -> clap::Command {
    let arguments = Arg::new("arguments")
        .value_name("ARGUMENT")
        .num_args(0..)
        .trailing_var_arg(true)
        .allow_hyphen_values(true)
        .value_parser(OsStringValueParser::new())
        .help(
            "Arguments of portcullis-lab: run, up, list, apply, down, logs, exec; see portcullis-lab --help",
        );
    clap::Command::new("lab")
        .about("Build a throwaway cluster in network namespaces, and try its Services (runs portcullis-lab)")
        .disable_help_flag(true)
        .arg(arguments)
}

/// Returns the arguments of `portcullis-lab`.
pub(super) fn arguments(matches: &ArgMatches) -> Vec<OsString> {
    matches.get_many::<OsString>("arguments").into_iter().flatten().cloned().collect()
}
