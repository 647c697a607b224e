//! The program: flags, configuration, sources, the loop, HTTP endpoints, subcommands.

pub mod cluster_view;
pub mod commands;
pub mod config;
mod conntrack_settings;
pub mod daemon;
mod error_chain;
mod file_watch;
#[cfg(test)]
mod generated_docs;
pub mod health_check_node_port;
pub mod host;
pub mod host_file;
pub mod http;
pub mod logging;
mod memory;
pub mod metrics;
pub mod node;
mod oom_score;
mod other_proxies;
mod output;
mod policy_lock;
pub mod source;
pub mod sysctl;
mod truncated_list;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use config::{Command, Config, ConfigErrors, Invocation};
use daemon::{ConfigFile, DaemonError};
use logging::Delivery;
use output::Output;

/// The exit status where the configuration is wrong or nothing could be done.
const FAILED: u8 = 2;

/// Does what the command line asks for.
pub fn run(invocation: Invocation) -> ExitCode {
    logging::exit_on_panic();
    let code = perform(&invocation).unwrap_or_else(|error| {
        logging::final_message(&format!("portcullis: {}", error_chain::describe(error.as_ref())));
        ExitCode::from(FAILED)
    });
    logging::finish();
    code
}

fn perform(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    let config = match &invocation.config {
        Ok(config) => config,
        Err(errors) => anyhow::bail!("the configuration cannot be used:\n{errors}"),
    };
    let delivery = match &invocation.command {
        Command::Daemon(_) => Delivery::Queued,
        _ => Delivery::Direct,
    };
    logging::start(config.logging, delivery);
    invocation.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut out = Output::new(io::stdout().lock());
    match &invocation.command {
        Command::Daemon(daemon) => return serve(invocation, config, daemon),
        Command::WriteConfig(path) => {
            let (text, warning) = invocation.configuration_for(path);
            warning.iter().for_each(|warning| tracing::warn!("{warning}"));
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Command::Render(render) => commands::render::run(config, render, &mut out)?,
        Command::Lab(lab) => {
            drop(out);
            return Ok(commands::lab::run(lab)?);
        }
        Command::Man(man) => commands::man::run(man, &mut out)?,
        Command::Completions(completions) => commands::completions::run(completions, &mut out)?,
        Command::Version => writeln!(out, "{}", version())?,
        Command::Cleanup(cleanup) => {
            return Ok(yes_or_one(commands::cleanup::run(*cleanup, &mut out)?));
        }
        Command::Diff(diff) => {
            let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            return Ok(yes_or_one(!commands::diff::run(config, diff, colour, &mut out)?));
        }
        Command::Explain(explain) => {
            return Ok(yes_or_one(commands::explain::run(config, explain, &mut out)?));
        }
        Command::Migrate(migrate) => {
            return Ok(yes_or_one(commands::migrate::run(config, migrate, &mut out)?));
        }
        Command::Policy(config::Policy::Matrix(matrix)) => {
            commands::policy::matrix(config, matrix, &mut out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// 0 if all is well, and 1 if it is not, as `diff` has it.
fn yes_or_one(well: bool) -> ExitCode {
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(invocation: &Invocation, config: &Config, daemon: &config::Daemon) -> anyhow::Result<ExitCode> {
    let configuration: serde_json::Value = serde_saphyr::from_str(&invocation.kube_proxy_configuration())?;
    // Two threads: one for the loop and the servers, and one more for when a sync or a client keeps it busy.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let file = invocation.config_file.clone().map(|path| ConfigFile { path, read: Box::new(read_anew) });
    match runtime.block_on(daemon::run(config.clone(), configuration.to_string(), daemon, file)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Supervisors start it anew for either status; one that keeps off after bad configurations must do so, too.
        Err(error @ DaemonError::Reconfigured(_)) => {
            logging::final_message(&format!("portcullis: {error}"));
            Ok(ExitCode::FAILURE)
        }
        // With --once this is an answer, not a failure to answer.
        Err(error @ DaemonError::Incomplete(_)) => {
            logging::final_message(&format!("portcullis: {error}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// The configuration by this process' command line, and by what the file that it names says now.
fn read_anew() -> Result<Config, ConfigErrors> {
    let invocation = Invocation::from_arguments(std::env::args_os(), |path| std::fs::read_to_string(path));
    invocation.expect("the same command line was taken at the start").config
}

/// What `portcullis version` prints.
pub fn version() -> String {
    format!("Portcullis v{} (kube-proxy v1.36.2)", env!("CARGO_PKG_VERSION"))
}
