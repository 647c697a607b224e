//! The kubeconfig files of commands, found as kubectl finds them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::{env, fmt};

use kube::config::{Kubeconfig, KubeconfigError};

use super::access::AccessError;
use crate::config::nearest;
use crate::truncated_list;

/// Number of contexts that an error lists.
const SHOWN_CONTEXTS: usize = 8;

/// The kubeconfig files that kubectl would read without `--kubeconfig`, and the context of `--context`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubectlFiles {
    /// The files; empty if none exists.
    pub files: Vec<PathBuf>,
    /// The context; `None` for the current one.
    pub context: Option<String>,
    /// Where the files come from, or why there are none.
    origin: Origin,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Origin {
    /// `$KUBECONFIG` has a value.
    Variable,
    /// `~/.kube/config`.
    Home(PathBuf),
    /// Neither `$KUBECONFIG` nor `$HOME` has a value.
    #[default]
    Nothing,
}

impl KubectlFiles {
    /// Returns the files by the environment of this process.
    pub fn from_environment(context: Option<String>) -> Self {
        Self::new(env::var_os("KUBECONFIG"), env::var_os("HOME"), context, Path::exists)
    }

    /// Files of `$KUBECONFIG` that do not exist are skipped; if it is set, `~/.kube/config` is not read.
    fn new(
        variable: Option<OsString>,
        home: Option<OsString>,
        context: Option<String>,
        exists: impl Fn(&Path) -> bool,
    ) -> Self {
        let listed: Vec<PathBuf> = variable
            .iter()
            .flat_map(|list| env::split_paths(list))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        let home = home.filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".kube/config"));
        let (mut files, origin) = match (listed.is_empty(), home) {
            (false, _) => (listed, Origin::Variable),
            (true, Some(path)) => (vec![path.clone()], Origin::Home(path)),
            (true, None) => (Vec::new(), Origin::Nothing),
        };
        files.retain(|path| exists(path));
        KubectlFiles { files, context, origin }
    }

    /// Returns the reason why there are no files, for error messages.
    pub(super) fn reason_without_files(&self) -> String {
        match &self.origin {
            Origin::Variable => "no file of $KUBECONFIG exists".to_owned(),
            Origin::Home(path) => format!("{} does not exist", path.display()),
            Origin::Nothing => "$KUBECONFIG and $HOME are not set".to_owned(),
        }
    }
}

impl fmt::Display for KubectlFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        f.write_str(&files.join(", "))?;
        if self.origin == Origin::Variable {
            f.write_str(" ($KUBECONFIG)")?;
        }
        Ok(())
    }
}

/// Reads and merges files: of entries with the same name, and of the current context, the first one counts.
pub(super) fn read_and_merge(files: &[PathBuf]) -> Result<Kubeconfig, (PathBuf, KubeconfigError)> {
    files.iter().try_fold(Kubeconfig::default(), |merged, path| {
        let next = Kubeconfig::read_from(path).and_then(|next| merged.merge(next));
        next.map_err(|error| (path.clone(), error))
    })
}

/// Checks that a context exists.
pub(super) fn check_context(kubeconfig: &Kubeconfig, context: &str, files: &str) -> Result<(), AccessError> {
    let mut names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
    if names.contains(&context) {
        return Ok(());
    }
    names.sort_unstable();
    let hint = match nearest(context, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there are no contexts".to_owned(),
        None => format!("the contexts are {}", truncated_list::names(names, SHOWN_CONTEXTS)),
    };
    Err(AccessError::Context { context: context.to_owned(), files: files.to_owned(), hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_as_by_kubectl() {
        let existing = ["/a", "/b", "/root/.kube/config"];
        // $KUBECONFIG, $HOME, the files, and the origin or the reason why there are none.
        let rows = [
            (None, Some("/root"), "/root/.kube/config", "/root/.kube/config"),
            (Some("/a"), Some("/root"), "/a", "/a ($KUBECONFIG)"),
            (Some("/a:/b"), Some("/root"), "/a /b", "/a, /b ($KUBECONFIG)"),
            (Some("/missing:/b"), Some("/root"), "/b", "/b ($KUBECONFIG)"),
            (Some("/missing"), Some("/root"), "", "no file of $KUBECONFIG exists"),
            (Some(""), Some("/root"), "/root/.kube/config", "/root/.kube/config"),
            (Some(":"), Some("/root"), "/root/.kube/config", "/root/.kube/config"),
            (None, Some("/home/other"), "", "/home/other/.kube/config does not exist"),
            (None, None, "", "$KUBECONFIG and $HOME are not set"),
            (None, Some(""), "", "$KUBECONFIG and $HOME are not set"),
        ];
        for (variable, home, expected, text) in rows {
            let exists = |path: &Path| existing.iter().any(|known| Path::new(known) == path);
            let found = KubectlFiles::new(variable.map(Into::into), home.map(Into::into), None, exists);
            let files: Vec<&str> = found.files.iter().filter_map(|path| path.to_str()).collect();
            assert_eq!(files.join(" "), expected, "{variable:?} {home:?}");
            let described = if files.is_empty() { found.reason_without_files() } else { found.to_string() };
            assert_eq!(described, text, "{variable:?} {home:?}");
        }
    }
}
