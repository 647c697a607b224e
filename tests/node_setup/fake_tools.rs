//! Scripts in PATH in place of the iptables tools and modprobe. Each runs the real tool, unless a fault is set for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The tools that are replaced.
const TOOLS: [&str; 7] = [
    "iptables",
    "iptables-restore",
    "iptables-save",
    "ip6tables",
    "ip6tables-restore",
    "ip6tables-save",
    "modprobe",
];

/// The folders in which the real tools are.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A folder of scripts, with faults that can be set and cleared while a daemon runs.
pub(crate) struct FakeTools {
    folder: PathBuf,
    flavour: &'static str,
}

impl FakeTools {
    /// Creates the scripts in a folder. Only the default flavour of the tools is found.
    pub(crate) fn new(folder: &Path) -> Self {
        FakeTools::with_flavour(folder, "")
    }

    /// The same, with the tools of a flavour as the default ones: `-legacy` or `-nft`.
    pub(crate) fn with_flavour(folder: &Path, flavour: &'static str) -> Self {
        let tools = FakeTools { folder: folder.join("tools"), flavour };
        fs::create_dir(&tools.folder).unwrap();
        TOOLS.iter().for_each(|tool| tools.put(tool));
        tools
    }

    /// Returns the value of PATH with which the scripts are found, and neither the real tools nor those of another flavour.
    pub(crate) fn path(&self) -> String {
        // Fault scripts need programs such as cat and sleep, which are not in these folders on every system.
        let programs = self.folder.join("programs");
        if !programs.exists() {
            fs::create_dir(&programs).unwrap();
            for name in ["sh", "cat", "sleep", "head", "yes", "printf", "tail"] {
                std::os::unix::fs::symlink(real(name), programs.join(name)).unwrap();
            }
        }
        format!("{}:{}", self.folder.display(), programs.display())
    }

    /// Makes a tool run a shell script. `$real` is the real tool. A script that does not exit is followed by the real tool.
    pub(crate) fn set_fault(&self, tool: &str, script: &str) {
        // Complete before it is found.
        let file = self.fault(tool);
        fs::write(file.with_extension("new"), script).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }

    /// Removes a tool.
    pub(crate) fn remove(&self, tool: &str) {
        fs::remove_file(self.folder.join(tool)).unwrap();
    }

    /// Makes a tool work again.
    pub(crate) fn repair(&self, tool: &str) {
        let _ = fs::remove_file(self.fault(tool));
        self.put(tool);
    }

    /// Returns the process IDs of the runs of faulty tools.
    pub(crate) fn runs(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.folder.join("runs")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn fault(&self, tool: &str) -> PathBuf {
        self.folder.join(format!("{tool}.fault"))
    }

    fn put(&self, tool: &str) {
        let folder = self.folder.display();
        let script = format!(
            "#!/bin/sh\nreal={}\nif [ -e {folder}/{tool}.fault ]; then\necho $$ >> {folder}/runs\n. {folder}/{tool}.fault\nfi\n\
             exec $real \"$@\"\n",
            real(&tool.replace("tables", &format!("tables{}", self.flavour))).display()
        );
        let file = self.folder.join(tool);
        // A script that is being written cannot be executed.
        fs::write(file.with_extension("new"), script).unwrap();
        fs::set_permissions(file.with_extension("new"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }
}

fn real(tool: &str) -> PathBuf {
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(tool)).find(|file| file.exists());
    // modprobe may be missing; the script then fails as if there were none.
    found.unwrap_or_else(|| Path::new("/nosuch").join(tool))
}
