//! The files of the credentials for the API server: read as client-go does, named in errors, and read again when they
//! change.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::header::HeaderValue;
use kube::config::{AuthInfo, Kubeconfig};

use super::access::AccessError;
use super::exec_plugin::ExecPlugin;
use crate::bounded_file::{self, MAX_CONFIGURATION};

/// The files of a client's credentials, with their versions when the client was created.
#[derive(Clone, Debug, Default)]
pub(super) struct CredentialFiles {
    files: Vec<(PathBuf, Option<Identity>)>,
    /// The exec plugin, if there is one.
    command: Option<String>,
}

/// Identifies a version of a file: inode, size, and times of the last change.
type Identity = [i64; 6];

fn identity(path: &Path) -> Option<Identity> {
    let m = fs::metadata(path).ok()?;
    // These are only compared.
    let [inode, size] = [m.ino(), m.size()].map(u64::cast_signed);
    Some([inode, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
}

impl CredentialFiles {
    /// Adds a file; to be called before it is read.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>) {
        let path = path.into();
        let identity = identity(&path);
        self.files.push((path, identity));
    }

    /// Adds the files that a kubeconfig names.
    pub(super) fn add_all_of(&mut self, kubeconfig: &Kubeconfig) {
        let clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
        let authorities = clusters.filter_map(|cluster| cluster.certificate_authority.as_ref());
        let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
        let of_users = users.clone().flat_map(|user| {
            [&user.client_certificate, &user.client_key, &user.token_file].into_iter().flatten()
        });
        let files: Vec<&String> = authorities.chain(of_users).filter(|path| !path.is_empty()).collect();
        self.command = users.filter_map(|user| user.exec.as_ref()?.command.clone()).next();
        files.into_iter().for_each(|path| self.add(path));
    }

    /// Checks the sizes of the files.
    ///
    /// # Errors
    /// A file is too large.
    pub(super) fn check_sizes(&self) -> Result<(), AccessError> {
        for (path, _) in &self.files {
            bounded_file::check_size(path, MAX_CONFIGURATION).map_err(|error| AccessError::Credentials {
                of: path.display().to_string(),
                message: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// Returns true if a file was changed or replaced. An exec plugin runs again when its credentials expire.
    pub(super) fn have_changed(&self) -> bool {
        self.files.iter().any(|(path, before)| identity(path) != *before)
    }
}

impl fmt::Display for CredentialFiles {
    /// Lists the files and the exec plugin, for error messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.iter().map(|(path, _)| path.display().to_string());
        let command = self.command.iter().map(|command| format!("the exec plugin {command}"));
        let all: Vec<String> = files.chain(command).collect();
        if all.is_empty() { f.write_str("no file") } else { f.write_str(&all.join(", ")) }
    }
}

/// Prepares credentials for a daemon: replaces a token file by its token, trims tokens, and takes out the exec plugin, unless there
/// is a token.
///
/// # Errors
/// The token file cannot be read or has no token, the kubeconfig's token cannot be sent, the exec plugin is invalid or needs a
/// terminal, or a legacy `auth-provider` would run a program.
pub(super) fn prepare(user: &mut AuthInfo) -> Result<Option<ExecPlugin>, AccessError> {
    if let Some(path) = user.token_file.take().filter(|path| !path.is_empty()) {
        // As in client-go, the file has precedence over an inline token.
        user.token = Some(token_of(Path::new(&path))?.into());
    } else if let Some(token) = inline_token(user) {
        user.token = Some(bearer_token("token of the kubeconfig's user", &token)?.into());
    } else {
        user.token = None;
    }
    if let Some(provider) =
        user.auth_provider.as_ref().filter(|provider| provider.config.contains_key("cmd-path"))
    {
        // client-go has removed these.
        let message =
            "a provider that runs a program is not supported; expected an exec plugin (users[].user.exec)";
        let of = format!("auth-provider {}", provider.name);
        return Err(AccessError::Credentials { of, message: message.to_owned() });
    }
    match user.exec.take() {
        // A token has precedence, and the plugin is not run.
        Some(exec) => {
            ExecPlugin::from_config(&exec).map(|plugin| Some(plugin).filter(|_| user.token.is_none()))
        }
        None => Ok(None),
    }
}

/// Returns the inline token of a kubeconfig; `None` if it is empty. Its type, which keeps secrets from logs, reveals it only
/// when serialized.
fn inline_token(user: &AuthInfo) -> Option<String> {
    user.token.as_ref()?;
    let user = serde_json::to_value(user).ok()?;
    user["token"].as_str().filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The largest token file, in bytes. API servers accept headers of up to 1 MiB together.
const MAX_TOKEN: usize = 64 << 10;

/// Reads the token of a file.
fn token_of(path: &Path) -> Result<String, AccessError> {
    let of = format!("token file {}", path.display());
    match bounded_file::read_to_string(path, MAX_TOKEN) {
        Ok(text) => bearer_token(&of, &text),
        Err(error) => Err(AccessError::Credentials { of, message: error.to_string() }),
    }
}

/// Returns a trimmed token. `of` names its origin in errors.
fn bearer_token(of: &str, text: &str) -> Result<String, AccessError> {
    check_bearer_token(text)
        .map_err(|message| AccessError::Credentials { of: of.to_owned(), message: message.to_owned() })
}

/// Returns a trimmed token.
///
/// # Errors
/// It is not one bearer token.
pub(super) fn check_bearer_token(text: &str) -> Result<String, &'static str> {
    let token = text.trim();
    if token.is_empty() {
        return Err("it is empty, expected a bearer token");
    }
    if HeaderValue::from_str(token).is_err() || token.contains(char::is_whitespace) {
        return Err("it has white space or control characters within, expected one bearer token");
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_files_are_trimmed() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("token");
        let rows: [(&[u8], Result<&str, &str>); 9] = [
            (b"secret", Ok("secret")),
            (b"secret\n", Ok("secret")),
            (b" secret \r\n\n", Ok("secret")),
            (b"", Err("it is empty")),
            (b"\n", Err("it is empty")),
            (b"two\nlines\n", Err("white space")),
            (b"nul\0\n", Err("control characters")),
            (b"\xff", Err("UTF-8")),
            (&[b'x'; MAX_TOKEN + 1], Err("expected at most 64 KiB")),
        ];
        for (text, expected) in rows {
            fs::write(&path, text).expect("it can be written");
            match (token_of(&path), expected) {
                (Ok(token), Ok(expected)) => assert_eq!(token, expected),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected) && error.contains("token file"), "{error}");
                    assert!(error.contains(path.to_str().expect("a path of text")), "{error}");
                }
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn inline_tokens_are_trimmed_like_those_of_files() {
        let rows = [
            ("secret", Ok("secret")),
            ("secret\n", Ok("secret")),
            ("\n", Err("it is empty")),
            ("two\nlines", Err("white space")),
        ];
        for (token, expected) in rows {
            let mut user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            match (prepare(&mut user), expected) {
                (Ok(_), Ok(expected)) => assert_eq!(inline_token(&user).as_deref(), Some(expected)),
                (Err(error), Err(expected)) => {
                    let error = error.to_string();
                    assert!(error.contains(expected) && error.contains("kubeconfig"), "{error}");
                }
                (found, _) => panic!("{token:?}: {found:?}"),
            }
        }
        let mut none = AuthInfo { token: Some(String::new().into()), ..AuthInfo::default() };
        assert!(prepare(&mut none).is_ok());
    }

    #[test]
    fn replaced_file_has_changed() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("token");
        let mut files = CredentialFiles::default();
        files.add(&path);
        assert!(!files.have_changed());
        fs::write(&path, "a").expect("it can be written");
        assert!(files.have_changed(), "it was created");
    }
}
