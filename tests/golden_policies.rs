//! Golden tables of policies for the clusters in `fixtures/policies`: `portcullis render --only-policies` prints each
//! table, `nft` accepts it, and `portcullis diff` then finds no difference to the kernel. `make bless` regenerates the
//! tables; review the changes.

#[path = "../netlink/tests/namespace/mod.rs"]
mod namespace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Trial};

/// The node of the tables.
const NODE: &str = "node-1";

/// A folder with a cluster in `manifests.yaml`, its table in `table.nft`, and optional settings in `config.toml`.
#[derive(Clone)]
struct Case(PathBuf);

impl Case {
    fn all() -> Vec<Case> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/policies");
        let entries = fs::read_dir(folder).expect("the fixtures are there");
        let mut folders: Vec<PathBuf> = entries.map(|entry| entry.expect("readable").path()).collect();
        folders.sort();
        assert!(folders.len() >= 6, "only {} cases", folders.len());
        folders.into_iter().map(Case).collect()
    }

    fn name(&self) -> String {
        self.0.file_name().expect("a folder has a name").to_string_lossy().into_owned()
    }

    fn table(&self) -> PathBuf {
        self.0.join("table.nft")
    }

    /// Runs portcullis with the cluster.
    fn portcullis(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).args(["--network-policy", "--hostname-override", NODE]);
        command.arg("--manifests").arg(self.0.join("manifests.yaml"));
        let config = self.0.join("config.toml");
        if config.exists() {
            command.arg("--config").arg(config);
        }
        command.output().expect("the binary runs")
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("programs print UTF-8")
}

/// One test for each case.
fn main() {
    let mut trials = vec![Trial::test("policy_table_is_rendered_after_the_service_rules", || {
        policy_table_is_rendered_after_the_service_rules();
        Ok(())
    })];
    for case in Case::all() {
        let (rendered, loaded) = (case.clone(), case);
        trials.push(Trial::test(
            format!("rendered_table_matches_the_golden_file::{}", rendered.name()),
            move || {
                rendered_table_matches_the_golden_file(&rendered);
                Ok(())
            },
        ));
        trials.push(Trial::test(
            format!("nft_loads_the_golden_table_without_a_difference::{}", loaded.name()),
            move || {
                nft_loads_the_golden_table_without_a_difference(&loaded);
                Ok(())
            },
        ));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn rendered_table_matches_the_golden_file(case: &Case) {
    let Output { status, stdout, stderr } = case.portcullis(&["render", "--only-policies"]);
    assert!(status.success(), "{}: {}", case.name(), text(stderr));
    let (path, ours) = (case.table(), text(stdout));
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &ours).expect("the fixtures can be written");
    }
    let recorded = fs::read_to_string(&path).unwrap_or_default();
    if recorded != ours {
        let diff = similar::TextDiff::from_lines(&recorded, &ours);
        panic!("{}\n{}", case.name(), diff.unified_diff().header("recorded", "ours"));
    }
}

fn policy_table_is_rendered_after_the_service_rules() {
    let case = Case::all().swap_remove(0);
    let rendered = |arguments: &[&str]| {
        let output = case.portcullis(&[&["render"], arguments].concat());
        assert!(output.status.success(), "{}", text(output.stderr));
        text(output.stdout)
    };
    let (all, table) = (rendered(&[]), rendered(&["--only-policies"]));
    let services = all.strip_suffix(&format!("# nft\n{table}")).expect("it comes last");
    assert!(services.starts_with("# IPv4\n*") && services.contains("\n# IPv6\n*"), "{services}");
    assert!(!rendered(&["--family=ipv4"]).contains("portcullis-policy"));
}

/// Returns the output of `diff` from this line on.
fn compared_with(case: &Case, head: &str) -> Option<String> {
    let Output { status, stdout, stderr } = case.portcullis(&["diff"]);
    assert!(matches!(status.code(), Some(0 | 1)), "{}: {}", case.name(), text(stderr));
    let printed = text(stdout);
    printed.find(head).map(|start| printed[start..].to_owned())
}

fn nft_loads_the_golden_table_without_a_difference(case: &Case) {
    namespace::inside(|| {
        namespace::run("ip link set lo up");
        let compared = || compared_with(case, "--- kernel/inet portcullis-policy\n");
        let missing = compared().expect("there is no table yet");
        assert!(missing.contains(" @@ chain egress (is missing)\n"), "{missing}");
        namespace::run(&format!("nft -c -f {}", case.table().display()));
        namespace::run(&format!("nft -f {}", case.table().display()));
        assert_eq!(compared(), None, "{}", case.name());
        assert_eq!(compared_with(case, "--- kernel/bridge portcullis-policy\n"), None, "{}", case.name());
        if case.name() == "default-deny" {
            namespace::run("nft flush chain inet portcullis-policy ingress");
            namespace::run("nft delete element inet portcullis-policy ingress-ipv4 { 10.244.1.6 }");
            namespace::run("nft add chain inet portcullis-policy mine");
            let diff = compared().expect("the table differs");
            let sections: Vec<&str> = diff.lines().filter(|line| line.starts_with("@@")).collect();
            let [ingress, mine, map] = sections[..] else { panic!("{diff}") };
            assert!(ingress.ends_with("@@ chain ingress"), "{diff}");
            assert!(mine.ends_with("@@ chain mine (is not wanted)"), "{diff}");
            assert!(map.ends_with("@@ map ingress-ipv4: pods to which connections are judged"), "{diff}");
            assert!(diff.contains("\n+10.244.1.6 : 4"), "{diff}");
        }
        if case.name() == "named-ports" {
            namespace::run("nft flush chain bridge portcullis-policy forward");
            let diff = compared_with(case, "--- kernel/bridge portcullis-policy\n");
            assert!(diff.expect("the bridge table differs").contains("\n+ether type ip oifname . "));
        }
        namespace::run("nft delete table inet portcullis-policy");
        namespace::run("nft delete table bridge portcullis-policy");
    });
}
