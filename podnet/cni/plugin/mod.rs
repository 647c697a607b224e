//! Execution of requests.

mod add;
mod check;
mod del;
mod gc;
mod host_ports;
mod loopback;
mod status;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use portcullis_netlink::route::Rtnetlink;
use serde_json::{Value, json};

use super::configuration::NetworkConfiguration;
use super::error::{CniError, ErrorCode, Result};
use super::request::{Call, Request};
use super::{CniResult, CniVersion};
use crate::addresses::{self, AddressStore, PodRange};
use crate::pod_interface::Namespace;

/// The largest input. A network configuration has a few kilobytes, the list of attachments of `GC` about a hundred bytes per pod.
const MAX_INPUT: u64 = 16 << 20;

/// Executes one request of a container runtime: reads the environment by `get` and the configuration from `stdin`, and writes the
/// result or error to `stdout`.
pub fn main(get: impl Fn(&str) -> Option<OsString>, stdin: impl Read, mut stdout: impl Write) -> ExitCode {
    let (document, exit, undo) = match read(stdin) {
        Ok(input) => execute(get, &input),
        Err(error) => (Some(error.document(CniVersion::LATEST)), ExitCode::FAILURE, None),
    };
    let Some(document) = document else { return exit };
    // In one piece: the runtime wakes up for each write.
    let text = format!("{document:#}\n");
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(error) => {
            eprintln!("portcullis: cannot write the result: {error}");
            // The runtime does not know what was added.
            if let Some(call) = undo {
                let _ = catch_unwind(AssertUnwindSafe(|| run(&call)));
            }
            ExitCode::FAILURE
        }
    }
}

fn read(stdin: impl Read) -> Result<Vec<u8>> {
    let mut input = Vec::new();
    match stdin.take(MAX_INPUT + 1).read_to_end(&mut input) {
        Ok(length) if length as u64 > MAX_INPUT => Err(CniError::new(
            ErrorCode::DecodingFailure,
            format!("the network configuration exceeds {MAX_INPUT} bytes"),
        )),
        Ok(_) => Ok(input),
        Err(error) => Err(CniError::io("read the network configuration from standard input", &error)),
    }
}

/// Executes a request, and returns the document to print, the exit status, and the request that undoes the effect.
fn execute(get: impl Fn(&str) -> Option<OsString>, input: &[u8]) -> (Option<Value>, ExitCode, Option<Call>) {
    let failed = |error: CniError, version| (Some(error.document(version)), ExitCode::FAILURE, None);
    let (call, version) = match Call::parse(get, input) {
        Ok(parsed) => parsed,
        Err((error, version)) => return failed(error, version),
    };
    // A panic prints its message to standard error; the runtime still gets a document.
    let result = catch_unwind(AssertUnwindSafe(|| run(&call))).unwrap_or_else(|_| {
        Err(CniError::new(ErrorCode::Internal, "internal error; see the plugin's standard error"))
    });
    match result {
        Ok(Answer::Nothing) => (None, ExitCode::SUCCESS, None),
        Ok(Answer::Added(result)) => (Some(result.document(version)), ExitCode::SUCCESS, call.undo()),
        Ok(Answer::Versions(requested)) => {
            let document = json!({ "cniVersion": requested, "supportedVersions": CniVersion::names() });
            (Some(document), ExitCode::SUCCESS, None)
        }
        Err(error) => failed(error, version),
    }
}

/// The answer to a request.
enum Answer {
    Nothing,
    Added(CniResult),
    Versions(String),
}

fn run(call: &Call) -> Result<Answer> {
    let configuration = &call.configuration;
    if configuration.is_loopback() {
        return loopback::run(&call.request);
    }
    match &call.request {
        Request::Add(container) => add::run(configuration, container).map(Answer::Added),
        Request::Del(container) => del::run(configuration, container).map(|()| Answer::Nothing),
        Request::Check(container, previous) => {
            check::run(configuration, container, previous).map(|()| Answer::Nothing)
        }
        Request::Status => status::run(configuration).map(|()| Answer::Nothing),
        Request::Gc(valid) => gc::run(configuration, valid).map(|()| Answer::Nothing),
        Request::Version(requested) => Ok(Answer::Versions(requested.clone())),
    }
}

fn ranges(configuration: &NetworkConfiguration) -> Result<Vec<PodRange>> {
    let range = |network| {
        PodRange::new(network).map_err(|error| {
            CniError::new(
                ErrorCode::InvalidConfiguration,
                format!("network configuration: podCIDRs: {error}"),
            )
        })
    };
    configuration.pod_cidrs.iter().copied().map(range).collect()
}

/// Opens the store for an operation that allocates nothing: it works whatever the pod CIDRs are.
fn store_without_ranges(configuration: &NetworkConfiguration) -> Result<AddressStore> {
    AddressStore::open(&configuration.state_dir(), &[], &[]).map_err(|error| store_error(&error))
}

fn rtnetlink() -> Result<Rtnetlink> {
    Rtnetlink::open().map_err(|error| CniError::new(ErrorCode::Kernel, error.to_string()))
}

/// Checks that the daemon has set up the node since it booted. The configuration is on a disk and outlives a reboot, but routes and rules do
/// not, and neither does the folder of records, which the daemon creates.
///
/// # Errors
/// The reason why no pod can be added.
fn ensure_set_up(configuration: &NetworkConfiguration) -> std::result::Result<(), String> {
    let folder = configuration.state_dir();
    match folder.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{} does not exist: the daemon has not set up this node since it booted",
            folder.display()
        )),
        Err(error) => Err(format!("cannot read {}: {error}", folder.display())),
    }
}

/// Opens the network namespace of a request.
fn namespace(path: &Path) -> Result<Namespace> {
    let invalid = |reason: String| {
        CniError::new(ErrorCode::InvalidEnvironment, format!("CNI_NETNS: {}: {reason}", path.display()))
    };
    let namespace = Namespace::open(path).map_err(|error| invalid(error.to_string()))?;
    match namespace.is_own() {
        Ok(false) => Ok(namespace),
        Ok(true) => {
            Err(invalid("is the network namespace of the plugin itself; expected that of a pod".to_owned()))
        }
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn store_error(error: &addresses::Error) -> CniError {
    use addresses::Error;
    let code = match error {
        Error::Io { .. } | Error::DiskFull { .. } | Error::Unreadable { .. } => ErrorCode::IoFailure,
        Error::Locked { .. } | Error::Returned(_) => ErrorCode::TryAgainLater,
        Error::SameFamily(..) => ErrorCode::InvalidConfiguration,
        Error::NoRange => ErrorCode::NotAvailable,
        Error::Lookup { .. } => ErrorCode::Kernel,
        Error::Exhausted(_) => ErrorCode::Addresses,
    };
    CniError::new(code, error.to_string())
}
