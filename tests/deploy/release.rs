//! Tests of the scripts that collect a release, with other files in place of the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::manifests::{parse, root};

/// The files in an archive, below its folder.
const PACKED: [&str; 14] = [
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "bin/portcullis",
    "bin/portcullis-lab",
    "config.example.toml",
    "lib/systemd/system/portcullis.service",
    "share/completions/_portcullis",
    "share/completions/_portcullis-lab",
    "share/completions/portcullis-lab.bash",
    "share/completions/portcullis-lab.fish",
    "share/completions/portcullis.bash",
    "share/completions/portcullis.fish",
    "share/man/man1/portcullis.1",
];

/// Runs a script of `deploy/`, and returns its output.
fn run(script: &str, arguments: &[&Path], environment: &[(&str, &Path)]) -> String {
    let mut command = Command::new(root().join("deploy").join(script));
    command.args(arguments).envs(environment.iter().copied()).env("SOURCE_DATE_EPOCH", "1700000000");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Creates programs, manual pages and completions as `deploy/build-packages` does. Returns the folders of programs and pages.
fn build(folder: &Path, content: &str) -> [PathBuf; 2] {
    let [programs, pages] = ["programs", "pages"].map(|name| folder.join(name));
    for path in [&programs, &pages.join("man"), &pages.join("lab/man")] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(pages.join("man/portcullis.1"), "page").unwrap();
    fs::write(pages.join("lab/man/portcullis-lab.1"), "page").unwrap();
    for (name, pages) in [("portcullis", pages.clone()), ("portcullis-lab", pages.join("lab"))] {
        let program = programs.join(name);
        fs::write(&program, content).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        for file in [format!("{name}.bash"), format!("_{name}"), format!("{name}.fish")] {
            fs::write(pages.join(file), "completion").unwrap();
        }
    }
    [programs, pages]
}

/// Packs an archive of these programs. Returns its path.
fn archive(architecture: &str, content: &str, folder: &Path) -> PathBuf {
    let built = TempDir::new().unwrap();
    let [programs, pages] = build(built.path(), content);
    let output = run("archive", &[Path::new(architecture), &programs, folder], &[("PAGES", &pages)]);
    PathBuf::from(output.trim_end())
}

fn version() -> String {
    let manifest: toml::Table = fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    manifest["workspace"]["package"]["version"].as_str().unwrap().to_owned()
}

#[test]
fn archive_has_all_files_and_the_same_bytes_each_time() {
    let folder = TempDir::new().unwrap();
    let path = archive("arm64", "program", folder.path());
    let name = format!("portcullis-{}-linux-arm64", version());
    assert_eq!(path, folder.path().join(format!("{name}.tar.gz")));
    let again = TempDir::new().unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        fs::read(archive("arm64", "program", again.path())).unwrap(),
        "the same programs"
    );

    let unpacked = Command::new("tar").arg("-xzf").arg(&path).arg("-C").arg(again.path()).status().unwrap();
    assert!(unpacked.success());
    let root = again.path().join(&name);
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    let mut expected: Vec<&str> = PACKED.to_vec();
    expected.push("share/man/man1/portcullis-lab.1");
    expected.sort_unstable();
    assert_eq!(found, expected);
    for (file, mode) in [("bin/portcullis", 0o755), ("bin/portcullis-lab", 0o755), ("LICENSE", 0o644)] {
        assert_eq!(fs::metadata(root.join(file)).unwrap().permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn plugin_manifest_has_a_platform_for_each_archive() {
    let folder = TempDir::new().unwrap();
    let architectures = ["amd64", "arm64"];
    let archives = architectures.map(|name| archive(name, name, folder.path()));
    run("krew/manifest", &[folder.path()], &[]);
    let text = fs::read_to_string(folder.path().join("krew-portcullis.yaml")).unwrap();
    for placeholder in ["ARCHITECTURE", "VERSION", "SHA256"] {
        assert!(!text.contains(placeholder), "{placeholder} is left in\n{text}");
    }
    let manifest: Value = parse(&text, Path::new("krew-portcullis.yaml")).remove(0);
    assert_eq!(manifest["spec"]["version"], format!("v{}", version()));
    let platforms = manifest["spec"]["platforms"].as_array().unwrap();
    assert_eq!(platforms.len(), 2, "{text}");
    for ((platform, architecture), archive) in platforms.iter().zip(architectures).zip(archives) {
        assert_eq!(platform["selector"]["matchLabels"]["arch"], architecture);
        let name = archive.file_name().unwrap().to_str().unwrap();
        assert!(
            platform["uri"].as_str().unwrap().ends_with(&format!("/v{}/{name}", version())),
            "{platform}"
        );
        let sum = Command::new("sha256sum").arg(&archive).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        assert_eq!(platform["sha256"], sum[..64], "{platform}");
        let packed = name.strip_suffix(".tar.gz").unwrap();
        assert_eq!(platform["files"][0]["from"], format!("{packed}/bin/portcullis"));
        assert_eq!(platform["bin"], "portcullis");
    }
}

#[test]
fn architectures_have_targets() {
    for (architecture, triple) in
        [("amd64", "x86_64-unknown-linux-gnu\n"), ("arm64", "aarch64-unknown-linux-gnu\n")]
    {
        assert_eq!(run("triple", &[Path::new(architecture)], &[]), triple);
    }
    let output = Command::new(root().join("deploy/triple")).arg("riscv64").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.ends_with(": riscv64 is not supported; expected amd64 or arm64\n"), "{error}");
}
