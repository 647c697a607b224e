//! `portcullis lab`: a throwaway cluster, with this program on every node.

use std::io::{self, IsTerminal, Write};
use std::process::{Command, ExitCode};
use std::time::Duration;

use portcullis_lab::{DaemonSpec, Error, LabOptions, Mode, RunOptions, keeper};

use crate::config::{Lab, ProxyMode};

/// How long the nodes may take to serve a new lab.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);

/// Carries out a subcommand of `lab`. To be called before there is any other thread: it blocks signals.
///
/// # Errors
/// The lab cannot be built or found, or the output cannot be written.
pub fn run(lab: &Lab) -> Result<ExitCode, Error> {
    match lab {
        Lab::Run(cluster) => {
            let mode = match cluster.mode {
                ProxyMode::Iptables | ProxyMode::Nftables => Mode::Rules,
                ProxyMode::Ipvs => Mode::Ipvs,
            };
            let lab = options(cluster.mode)?;
            let options = RunOptions { lab, mode, sync_timeout: SYNC_TIMEOUT, ..RunOptions::default() };
            let report = portcullis_lab::run(&cluster.folder, &options)?;
            say(&report.render(io::stdout().is_terminal()));
            Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Lab::Up(cluster) => {
            let mut keep = Command::new(this_program()?);
            keep.args(["lab", "keep"]);
            let state = keeper::up(&cluster.folder, &options(cluster.mode)?, SYNC_TIMEOUT, keep)?;
            say(&format!(
                "lab {} is up; `portcullis lab exec POD -- CMD` runs a command in it, \
                          `portcullis lab down` ends it\n",
                state.id
            ));
            Ok(ExitCode::SUCCESS)
        }
        Lab::Keep => keeper::keep().map(|()| ExitCode::SUCCESS),
        Lab::Apply { folder } => keeper::apply(None, folder).map(|()| ExitCode::SUCCESS),
        Lab::Down => {
            let state = keeper::down(None)?;
            say(&format!("lab {} is gone\n", state.id));
            Ok(ExitCode::SUCCESS)
        }
        Lab::Exec { pod, command } => {
            let status = keeper::exec(None, pod, command)?;
            Ok(u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from))
        }
    }
}

fn options(mode: ProxyMode) -> Result<LabOptions, Error> {
    let mut args = vec![format!("--mode={}", mode.name()), "--detect-local-mode=NodeCIDR".to_owned()];
    // Nobody who plays wants to wait for more changes.
    args.extend(["--iptables-min-sync-period=0s", "--ipvs-min-sync-period=0s"].map(str::to_owned));
    let daemon = DaemonSpec { binary: this_program()?, args, ..DaemonSpec::default() };
    Ok(LabOptions { daemon: Some(daemon), ..LabOptions::default() })
}

fn this_program() -> Result<std::path::PathBuf, Error> {
    let own = std::env::current_exe();
    own.map_err(|source| Error::System { doing: "find this program's own file".into(), source })
}

fn say(text: &str) {
    // A reader that went away is no reason to leave a lab half built.
    drop(io::stdout().write_all(text.as_bytes()));
}
