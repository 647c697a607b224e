//! The program: flags, configuration, sources, the loop, HTTP endpoints, subcommands.

mod bounded_file;
pub mod cluster_view;
pub mod commands;
pub mod config;
mod conntrack_settings;
pub mod control;
pub mod daemon;
pub mod document;
mod error_chain;
mod fair_limit;
mod file_descriptors;
mod file_watch;
#[cfg(test)]
mod generated_docs;
pub mod host;
pub mod host_file;
pub mod kubectl_plugin;
mod local_client;
pub mod logging;
mod memory;
pub mod moment;
pub mod node;
pub mod node_network;
pub mod observe;
mod oom_score;
mod other_proxies;
mod output;
mod plural;
mod policy_lock;
mod privileges;
mod progress_bar;
mod proxy_modes;
pub mod service_report;
pub mod source;
pub mod sysctl;
pub mod termination;
mod token_bucket;
mod truncated_list;
mod unknown_object;
pub mod version;

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use anyhow::Context;
use commands::explain::{Agreement, ExplainResult};
use commands::status::Verdict;
use config::{Command, Config, ConfigErrors, Invocation};
use daemon::{ConfigFile, DaemonError};
use logging::Delivery;
use output::Output;
use portcullis_modes::external_program;
use termination::{OnSignal, Termination};

/// The exit status if the configuration is invalid or the command failed.
pub(crate) const FAILED: u8 = 2;

/// Runs the command of the command line.
pub fn run(invocation: Invocation) -> ExitCode {
    if invocation.command == Command::Pause {
        return commands::pause::run();
    }
    logging::exit_on_panic();
    let result = perform(&invocation);
    progress_bar::finish();
    let code = result.unwrap_or_else(|error| {
        logging::final_message(&format!("portcullis: {}", error_chain::describe(error.as_ref())));
        ExitCode::from(FAILED)
    });
    logging::finish();
    code
}

fn perform(invocation: &Invocation) -> anyhow::Result<ExitCode> {
    if let (Command::Bundle(bundle), Err(_)) = (&invocation.command, &invocation.config) {
        // An invalid configuration is a part of the archive.
        logging::start(Config::default().logging, Delivery::Direct);
        return Ok(exit_code(commands::bundle::run(invocation, bundle)?));
    }
    let config = match &invocation.config {
        Ok(config) => config,
        Err(errors) => anyhow::bail!("invalid configuration:\n{errors}"),
    };
    let delivery = match &invocation.command {
        Command::Daemon(_) => Delivery::Queued,
        _ => Delivery::Direct,
    };
    let logging = match delivery {
        Delivery::Queued => config.logging,
        Delivery::Direct => invocation.command_logging(config),
    };
    logging::start(logging, delivery);
    invocation.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    // Before the threads that use them.
    privileges::use_permitted_capabilities();
    external_program::set_time_limit(config.tool_timeout);
    let termination = Termination::handle_signals(match delivery {
        Delivery::Queued => OnSignal::Stop,
        Delivery::Direct => OnSignal::End,
    })?;
    if let Some(message) = progress_message(&invocation.command) {
        progress_bar::start(message);
    }
    let mut out = Output::stdout();
    let code = perform_command(invocation, config, &termination, &mut out)?;
    out.flush().context("cannot write")?;
    Ok(code)
}

/// Performs the command. Its output may be buffered.
fn perform_command(
    invocation: &Invocation,
    config: &Config,
    termination: &Termination,
    out: &mut Output<StdoutLock<'_>>,
) -> anyhow::Result<ExitCode> {
    match &invocation.command {
        Command::Daemon(daemon) => return serve(invocation, config, daemon, termination),
        Command::WriteConfig(path) => {
            let (text, warning) = invocation.configuration_for(path);
            warning.iter().for_each(|warning| tracing::warn!("{warning}"));
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Command::Render(render) => commands::render::run(config, render, out)?,
        Command::Lab(arguments) => return Err(commands::lab::exec(arguments).into()),
        Command::Man(config::Man { command, .. }) if command.first().is_some_and(|name| name == "lab") => {
            let page = std::iter::once("man").chain(command[1..].iter().map(String::as_str));
            return Err(commands::lab::exec(page).into());
        }
        Command::Man(man) => commands::man::run(man, out)?,
        Command::Completions(completions) => commands::completions::run(completions, out)?,
        Command::Version(output) => version::print(*output, out)?,
        Command::Cleanup(cleanup) => {
            return Ok(exit_code(commands::cleanup::run(config, *cleanup, out)?));
        }
        Command::Bundle(bundle) => {
            return Ok(exit_code(commands::bundle::run(invocation, bundle)?));
        }
        Command::Pause => return Ok(commands::pause::run()),
        Command::Diff(diff) => {
            let colour = output::has_colors(&io::stdout());
            return Ok(exit_code(!commands::diff::run(config, diff, colour, out)?));
        }
        Command::Status(config::Status { since: Some(since), output, .. }) => {
            commands::status::run_timeline(config, *since, *output, out)?;
        }
        Command::Status(status) => {
            let (stdout, colors) = (io::stdout(), output::has_colors(&io::stdout()));
            let verdict = commands::status::run(config, *status, stdout.is_terminal(), colors, out);
            return Ok(status_code(status.watch, verdict?));
        }
        Command::Observe(observe) => {
            commands::observe::run(config, observe, output::has_colors(&io::stdout()), out)?;
        }
        Command::Explain(explain) => {
            return Ok(match commands::explain::run(config, explain, out)? {
                ExplainResult::Predicted { arrives } => exit_code(arrives),
                ExplainResult::Probed(Agreement::Agrees) => ExitCode::SUCCESS,
                ExplainResult::Probed(Agreement::Disagrees) => ExitCode::FAILURE,
                ExplainResult::Probed(Agreement::NotDetermined) => ExitCode::from(FAILED),
            });
        }
        Command::Services(services) => {
            return Ok(exit_code(commands::services::run(config, services, out)?));
        }
        Command::Migrate(migrate) => {
            return Ok(exit_code(commands::migrate::run(config, migrate, out)?));
        }
        Command::Policy(config::Policy::Matrix(matrix)) => {
            commands::policy::matrix(config, matrix, out)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns what a command does for a longer time before it prints its output.
fn progress_message(command: &Command) -> Option<&'static str> {
    match command {
        Command::Render(_) => Some("reading the cluster's objects and rendering rules"),
        Command::Diff(_) => Some("comparing the kernel's rules with the cluster's objects"),
        Command::Explain(_) | Command::Services(_) | Command::Policy(_) => {
            Some("reading the cluster's objects")
        }
        Command::Status(status) if !status.watch => Some("waiting for the daemon"),
        Command::Migrate(_) => Some("inspecting the node"),
        Command::Cleanup(cleanup) if cleanup.dry_run => Some("searching for rules"),
        Command::Cleanup(_) => Some("removing rules"),
        _ => None,
    }
}

/// Returns 0 or 1, as `diff` does.
fn exit_code(success: bool) -> ExitCode {
    if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the exit status of `status`. With `--watch` it ends when its output is closed, which is no failure.
fn status_code(watch: bool, verdict: Verdict) -> ExitCode {
    match verdict {
        _ if watch => ExitCode::SUCCESS,
        Verdict::Healthy => ExitCode::SUCCESS,
        Verdict::Unhealthy => ExitCode::FAILURE,
        Verdict::Unknown => ExitCode::from(FAILED),
    }
}

fn serve(
    invocation: &Invocation,
    config: &Config,
    daemon: &config::Daemon,
    termination: &Termination,
) -> anyhow::Result<ExitCode> {
    let configuration: serde_json::Value = serde_saphyr::from_str(&invocation.kube_proxy_configuration())?;
    file_descriptors::raise_limit();
    memory::limit_allocator();
    // Two threads, so that the servers respond while the loop is busy.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let file = invocation.config_file.clone().map(|path| ConfigFile { path, read: Box::new(reload_config) });
    let result = runtime.block_on(async {
        tokio::select! {
            result = daemon::run(config.clone(), configuration.to_string(), daemon, file, termination) => result,
            () = termination.requested_before_loop() => Err(DaemonError::Stopped),
        }
    });
    // A thread may wait for the kernel or a file.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // A tool that was killed fails the start.
        Err(error) if termination.is_requested() => {
            logging::final_message(&format!("portcullis: {error}"));
            let must_complete = daemon.once || daemon.init_only;
            Ok(if must_complete { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        // Status 1: supervisors restart it, also those that do not restart after an invalid configuration (status 2).
        Err(error @ DaemonError::Reconfigured(_)) => {
            logging::final_message(&format!("portcullis: {error}"));
            Ok(ExitCode::FAILURE)
        }
        // `--once` completed, with Services that could not be programmed.
        Err(error @ DaemonError::Incomplete(_)) => {
            logging::final_message(&format!("portcullis: {error}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the configuration again from this process's command line and the current content of its file.
fn reload_config() -> Result<Config, ConfigErrors> {
    let invocation = Invocation::from_arguments(std::env::args_os(), config::read_file);
    invocation.expect("the command line was parsed at the start").config
}
