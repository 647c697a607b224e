//! The `portcullis` binary, also under the name `kubectl-portcullis`.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    if env::args_os().next().is_some_and(|program| portcullis::kubectl_plugin::is_invoked_as_plugin(&program))
    {
        return portcullis::kubectl_plugin::run(env::args_os());
    }
    portcullis::run(portcullis::config::Invocation::parse())
}
