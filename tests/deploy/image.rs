//! Tests of the image's Dockerfile. `make image` builds it, and runs the programs in it.

use std::fs;

use toml::Table;

use crate::kustomize;
use crate::manifests::{containers, root};

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
