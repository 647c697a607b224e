//! The two flavours of the tool, and PATH folders with only one of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// The kernel interface that the tool uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Flavour {
    /// x_tables.
    Legacy,
    /// nf_tables.
    Nft,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Flavour::Legacy => "legacy",
            Flavour::Nft => "nft",
        }
    }

    /// Returns the multi-call program of this flavour.
    pub(crate) fn program(self) -> PathBuf {
        let name = format!("xtables-{}-multi", self.name());
        let folders = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(|folder| Path::new(folder).join(&name));
        let found = folders.into_iter().find(|path| path.exists());
        found.unwrap_or_else(|| panic!("there is no {name}; install iptables"))
    }

    /// Fills a folder with links to the tools of this flavour, under their plain names.
    pub(crate) fn link_tools(self, folder: &Path) {
        fs::create_dir_all(folder).expect("the temporary folder can be written");
        for family in ["iptables", "ip6tables"] {
            for action in ["", "-save", "-restore"] {
                symlink(self.program(), folder.join(format!("{family}{action}"))).expect("it is new");
            }
        }
    }

    /// Does the same with an `iptables-restore` that also records its arguments and its input, one file per restore,
    /// named by the time.
    pub(crate) fn link_recording_tools(self, folder: &Path, records: &Path) {
        self.link_tools(folder);
        fs::create_dir_all(records).expect("the temporary folder can be written");
        let script = format!(
            "#!/bin/sh\n\
             name={records}/$(/bin/date +%s%N)\n\
             echo \"$@\" >$name.arguments\n\
             /usr/bin/tee $name.text | {program} iptables-restore \"$@\"\n",
            records = records.display(),
            program = self.program().display(),
        );
        let tool = folder.join("iptables-restore");
        fs::remove_file(&tool).expect("it was linked above");
        fs::write(&tool, script).expect("the temporary folder can be written");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("the file is ours");
    }
}
