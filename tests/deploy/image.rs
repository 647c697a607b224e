//! Tests of the image's Dockerfile. `make image` builds it, and runs the programs in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;
use toml::Table;

use crate::kustomize;
use crate::manifests::{containers, root};

/// Another architecture than that of this machine: its name, the value of `e_machine` in programs for it, and its emulator.
const FOREIGN: (&str, u8, &str) = match cfg!(target_arch = "x86_64") {
    true => ("arm64", 0xb7, "qemu-aarch64-static"),
    false => ("amd64", 0x3e, "qemu-x86_64-static"),
};

/// The programs that the scripts run before the namespace exists or in it.
const TOOLS: [&str; 12] = [
    "bash", "dirname", "dpkg", "echo", "grep", "id", "mount", "readelf", "realpath", "sed", "uname",
    "unshare",
];

/// Returns the instructions of the Dockerfile, with continued lines joined.
fn instructions() -> Vec<String> {
    let text = fs::read_to_string(root().join("deploy/image/Dockerfile")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    lines.replace("\\\n", " ").lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn with<'a>(instructions: &'a [String], name: &str) -> Vec<&'a str> {
    instructions.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
}

#[test]
fn labels_are_those_of_the_package() {
    let instructions = instructions();
    let labels = with(&instructions, "LABEL").concat();
    let label = |name: &str| {
        let start = format!("org.opencontainers.image.{name}=\"");
        let value = labels.split_once(&start).unwrap_or_else(|| panic!("no label {name}")).1;
        value.split('"').next().unwrap().to_owned()
    };
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let package = &manifest["workspace"]["package"];
    assert_eq!(label("source"), package["repository"].as_str().unwrap());
    assert_eq!(label("licenses"), package["license"].as_str().unwrap());
    assert_eq!(label("description"), manifest["package"]["description"].as_str().unwrap());
    assert_eq!([label("version"), label("revision")], ["${VERSION}", "${REVISION}"]);
    let version = package["version"].as_str().unwrap();
    assert!(
        with(&instructions, "ARG").contains(&format!("VERSION={version}").as_str()),
        "the default is {version}"
    );
    assert!(!label("title").is_empty() && !label("documentation").is_empty());
}

#[test]
fn base_images_are_pinned_by_digest_and_can_be_replaced() {
    let instructions = instructions();
    let variables = with(&instructions, "ENV").concat();
    let toolchain = variables.split_once("RUSTUP_TOOLCHAIN=").unwrap().1;
    let manifest: Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let oldest = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(toolchain.starts_with(&format!("{oldest}.")), "{toolchain} is not the tested {oldest}");
    let arguments = with(&instructions, "ARG");
    let default = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name)).unwrap();
    assert!(default("BUILDER=").starts_with(&format!("docker.io/library/rust:{toolchain}-")), "{toolchain}");
    assert!(default("BASE=").starts_with("docker.io/library/debian:bookworm-2"));
    for argument in ["BUILDER=", "BASE="] {
        let digest = default(argument).split_once("@sha256:").unwrap().1;
        assert!(digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit()), "{argument}{digest}");
    }
    let stages = with(&instructions, "FROM");
    assert_eq!(
        stages,
        ["--platform=${BUILDPLATFORM} ${BUILDER} AS build", "${BASE} AS node", "node AS pause", "node"]
    );
}

/// The name in the DaemonSets, that in kube-proxy's DaemonSet, and the capability of a daemon without root.
#[test]
fn the_program_is_where_the_manifests_start_it() {
    let instructions = instructions();
    let runs = with(&instructions, "RUN");
    let program =
        containers(&kustomize::folder_documents("base"))[0]["command"][0].as_str().unwrap().to_owned();
    assert!(
        with(&instructions, "COPY").contains(&format!("--from=build /out/portcullis {program}").as_str())
    );
    // Of the daemon, and of the sandbox image.
    let entry_points = [format!("[\"{program}\"]"), format!("[\"{program}\", \"pause\"]")];
    assert_eq!(with(&instructions, "ENTRYPOINT"), entry_points);
    assert!(runs.contains(&format!("setcap cap_net_admin=p {program}").as_str()));
    assert!(runs.contains(&"ln -s portcullis /usr/local/bin/kube-proxy"));
    let compile = runs.iter().find(|run| run.contains("deploy/build-release")).unwrap();
    // Nodes run a copy of it as CNI plugin.
    assert!(compile.contains("deploy/build-release --static "), "{compile}");
    for triple in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"] {
        assert!(compile.contains(triple), "{triple}");
    }
}

/// A folder with the programs that the scripts need, except emulators, and with a program of another architecture.
fn folder_without_emulator() -> TempDir {
    let folder = TempDir::new().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    for tool in TOOLS {
        let mut places = std::env::split_paths(&path).map(|place| place.join(tool));
        let place = places.find(|place| place.exists()).unwrap_or_else(|| panic!("{tool} is not installed"));
        symlink(place, folder.path().join(tool)).unwrap();
    }
    let mut header = [0; 64];
    // ELF, 64 bits, little-endian; an executable; sizes of the headers.
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    (header[16], header[18], header[20]) = (2, FOREIGN.1, 1);
    (header[52], header[54], header[58]) = (64, 56, 64);
    let program = folder.path().join("program");
    fs::write(&program, header).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn run(script: &str, arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(root().join("deploy/image").join(script));
    command.args(arguments).env("PATH", folder).env("ARCHITECTURE", FOREIGN.0).env_remove("EMULATION");
    command.output().unwrap()
}

fn error(output: &Output) -> String {
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the emulators that are registered for the whole machine.
fn registered() -> Vec<String> {
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// With `echo` in place of the emulator: the kernel passes it the program and its arguments.
#[test]
fn programs_of_another_architecture_run_in_a_namespace_only() {
    let folder = folder_without_emulator();
    let program = folder.path().join("program");
    let program = program.to_str().unwrap();
    let (architecture, _, emulator) = FOREIGN;
    let echo = fs::canonicalize(folder.path().join("echo")).unwrap();
    fs::copy(echo, folder.path().join(emulator)).unwrap();
    let before = registered();
    let output = run("emulation", &[architecture, program, "a b", "c"], folder.path());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = release.split('.').map_while(|number| number.parse().ok());
    if !rustix::process::geteuid().is_root() {
        assert!(error(&output).ends_with("needs root\n"), "{output:?}");
    } else if (version.next(), version.next()) < (Some(6_u32), Some(7)) {
        assert!(error(&output).contains(" for the whole machine only (before 6.7)"), "{output:?}");
    } else {
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{program} a b c\n"), "{output:?}");
        let output = run("emulation", &[architecture, "bash", "-c", "exit 7"], folder.path());
        assert_eq!(output.status.code(), Some(7), "{output:?}");
    }
    assert_eq!(registered(), before, "the machine is as before");
}

#[test]
fn missing_emulators_and_unknown_architectures_are_named() {
    let folder = folder_without_emulator();
    let program = folder.path().join("program");
    let (program, archive) = (program.to_str().unwrap(), folder.path().join("archive"));
    let (architecture, _, emulator) = FOREIGN;
    let expected = format!(": this machine has no {emulator}; install the package qemu-user-static\n");
    let archive = archive.to_str().unwrap();
    for (script, arguments) in [("emulation", [architecture, program]), ("build", [program, archive])] {
        let error = error(&run(script, &arguments, folder.path()));
        assert!(error.ends_with(&expected), "{script}: {error}");
    }
    let error = error(&run("emulation", &["riscv64", "true"], folder.path()));
    assert!(
        error.ends_with(": no emulator for the architecture riscv64; expected amd64 or arm64\n"),
        "{error}"
    );
}
