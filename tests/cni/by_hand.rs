//! The installed plugin, run by a user instead of a container runtime.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_podnet::installation::Installation;

#[test]
fn without_a_request_the_plugin_prints_its_usage_and_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let installation =
        Installation { bin_dir: folder.path().join("home/kubernetes/bin"), ..Installation::default() };
    installation.install_plugin(Path::new(env!("CARGO_BIN_EXE_portcullis"))).unwrap();
    for arguments in [&[][..], &["--once"], &["status"], &["--version"]] {
        let mut command = Command::new(installation.plugin());
        let output = command.args(arguments).env_remove("CNI_COMMAND").output().unwrap();
        let usage = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {usage}");
        assert!(
            output.stdout.is_empty() && usage.contains("CNI_COMMAND is not set"),
            "{arguments:?}: {usage}"
        );
    }
    let mut request = Command::new(installation.plugin())
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    request.stdin.take().unwrap().write_all(br#"{"cniVersion": "1.0.0"}"#).unwrap();
    let output = request.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("supportedVersions"));
}
