//! Tests of the build script: which commit a build names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Compiles the build script into a folder.
fn compile(folder: &Path) -> PathBuf {
    let (script, program) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs"), folder.join("script"));
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "-o"]).arg(&program).arg(script);
    let output = rustc.output().expect("rustc, which compiled this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// Runs the build script in a folder.
fn run(program: &Path, folder: &Path, profile: &str, given: Option<&str>) -> Result<String, String> {
    let mut command = Command::new(program);
    command.current_dir(folder).env("PROFILE", profile).env_remove("PORTCULLIS_COMMIT");
    command.envs(given.map(|given| ("PORTCULLIS_COMMIT", given)));
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    if !status.success() {
        return Err(text(stderr));
    }
    let commit = text(stdout)
        .lines()
        .find_map(|line| line.strip_prefix("cargo::rustc-env=PORTCULLIS_COMMIT=").map(str::to_owned));
    Ok(commit.expect("it always sets the variable"))
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    command.args(["-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]);
    let output = command.current_dir(folder).args(arguments).output().expect("git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints UTF-8").trim().to_owned()
}

#[test]
fn a_build_names_the_commit_of_its_own_source_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = compile(folder.path());
    let repository = folder.path().join("repository");
    let (lab, archive) = (repository.join("lab"), repository.join("unpacked"));
    fs::create_dir_all(&lab).expect("a folder");
    fs::create_dir_all(&archive).expect("a folder");
    fs::write(repository.join("build.rs"), "").expect("it can be written");
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "build.rs"]);
    git(&repository, &["commit", "-q", "-m", "first"]);
    let head = git(&repository, &["rev-parse", "HEAD"]);
    let head = Ok(head[..12].to_owned());
    // An archive that was unpacked inside of another repository.
    fs::write(archive.join("build.rs"), "").expect("it can be written");

    let unknown = Ok("unknown".to_owned());
    let given = "0123456789abcdef0123456789abcdef01234567";
    let rows = [
        (&repository, "release", None, &head),
        (&lab, "release", None, &head),
        (&repository, "debug", None, &unknown),
        (&archive, "release", None, &unknown),
        (&archive, "release", Some(""), &unknown),
        (&archive, "release", Some(given), &Ok(given[..12].to_owned())),
        (&repository, "debug", Some(given), &Ok(given[..12].to_owned())),
    ];
    for (folder, profile, given, expected) in rows {
        assert_eq!(&run(&program, folder, profile, given), expected, "{folder:?} {profile} {given:?}");
    }
    let error = run(&program, &repository, "release", Some("v1.2.3")).expect_err("that is no commit");
    assert!(error.contains("expected hexadecimal digits"), "{error}");
}
