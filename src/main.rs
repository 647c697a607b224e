//! The `portcullis` binary, also under the name `kubectl-portcullis`, and as a CNI plugin.

use std::path::Path;
use std::process::ExitCode;
use std::{env, io};

use portcullis_podnet::cni;
use portcullis_podnet::installation::is_plugin;

fn main() -> ExitCode {
    // Before flags are parsed: a container runtime passes none, and starts one process per pod.
    if env::var_os("CNI_COMMAND").is_some() {
        return cni::main(|name| env::var_os(name), io::stdin().lock(), io::stdout().lock());
    }
    // A copy in the folder of CNI plugins, run by hand, must not become a second daemon.
    if is_plugin(Path::new("/proc/self/exe")).unwrap_or(false) {
        return cni::usage(io::stderr());
    }
    if env::args_os().next().is_some_and(|program| portcullis::kubectl_plugin::is_invoked_as_plugin(&program))
    {
        return portcullis::kubectl_plugin::run(env::args_os());
    }
    // Before the parser: each pod may have such a process.
    if portcullis::commands::pause::is_requested(env::args_os()) {
        return portcullis::commands::pause::run();
    }
    portcullis::run(portcullis::config::Invocation::parse())
}
