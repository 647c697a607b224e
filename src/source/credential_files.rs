//! The files that credentials for the API server come from: read as client-go reads them, named when they cannot be used,
//! and read again when they change.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use http::header::HeaderValue;
use kube::config::{AuthInfo, ExecInteractiveMode, Kubeconfig};

use super::access::AccessError;

/// The files of a client's credentials, as they were when it was made.
#[derive(Clone, Debug, Default)]
pub(super) struct CredentialFiles {
    files: Vec<(PathBuf, Option<Identity>)>,
    /// The exec plugin, if there is one.
    command: Option<String>,
}

/// What tells a file from its next version: inode, size, and times of the last change.
type Identity = [i64; 6];

fn identity(path: &Path) -> Option<Identity> {
    let m = fs::metadata(path).ok()?;
    // An inode's number is only compared.
    let [inode, size] = [m.ino(), m.size()].map(u64::cast_signed);
    Some([inode, size, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
}

impl CredentialFiles {
    /// Notes a file, before it is read.
    pub(super) fn add(&mut self, path: impl Into<PathBuf>) {
        let path = path.into();
        let identity = identity(&path);
        self.files.push((path, identity));
    }

    /// Notes the files that a kubeconfig names.
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

    /// Whether any file was changed or replaced. An exec plugin runs again when its credentials expire.
    pub(super) fn have_changed(&self) -> bool {
        self.files.iter().any(|(path, before)| identity(path) != *before)
    }
}

impl fmt::Display for CredentialFiles {
    /// For messages: what there is to check.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.iter().map(|(path, _)| path.display().to_string());
        let command = self.command.iter().map(|command| format!("the exec plugin {command}"));
        let all: Vec<String> = files.chain(command).collect();
        if all.is_empty() { f.write_str("no file") } else { f.write_str(&all.join(", ")) }
    }
}

/// Makes credentials what a daemon can use: the token of a token file in the place of the file; no white space around a
/// token; and an exec plugin that does not ask at a terminal.
///
/// # Errors
/// The token file cannot be read or has no token, the kubeconfig's token cannot be sent, or the exec plugin needs a
/// terminal.
pub(super) fn prepare(user: &mut AuthInfo) -> Result<(), AccessError> {
    if let Some(path) = user.token_file.take().filter(|path| !path.is_empty()) {
        // As in client-go, the file wins over a token beside it.
        user.token = Some(token_of(Path::new(&path))?.into());
    } else if let Some(token) = inline_token(user) {
        user.token = Some(bearer_token("token of the kubeconfig's user", &token)?.into());
    }
    let Some(exec) = &mut user.exec else { return Ok(()) };
    let command = exec.command.clone().unwrap_or_default();
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        let message = "interactiveMode: Always needs a terminal, expected Never or IfAvailable".to_owned();
        return Err(AccessError::Credentials { of: format!("exec plugin {command}"), message });
    }
    exec.interactive_mode = Some(ExecInteractiveMode::Never);
    Ok(())
}

/// The token that a kubeconfig has in itself; an empty one counts as none. The type that keeps it from logs shows it only
/// when it is serialized.
fn inline_token(user: &AuthInfo) -> Option<String> {
    user.token.as_ref()?;
    let user = serde_json::to_value(user).ok()?;
    user["token"].as_str().filter(|token| !token.is_empty()).map(str::to_owned)
}

/// The token of a file.
fn token_of(path: &Path) -> Result<String, AccessError> {
    let of = format!("token file {}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => bearer_token(&of, &text),
        Err(error) => Err(AccessError::Credentials { of, message: error.to_string() }),
    }
}

/// The token of a text, without the white space around it. `of`: where the text is from.
fn bearer_token(of: &str, text: &str) -> Result<String, AccessError> {
    let wrong = |message: &str| AccessError::Credentials { of: of.to_owned(), message: message.to_owned() };
    let token = text.trim();
    if token.is_empty() {
        return Err(wrong("it is empty, expected a bearer token"));
    }
    if HeaderValue::from_str(token).is_err() || token.contains(char::is_whitespace) {
        return Err(wrong("it has white space or control characters within, expected one bearer token"));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_without_the_white_space_around_it() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("token");
        let rows: [(&[u8], Result<&str, &str>); 8] = [
            (b"secret", Ok("secret")),
            (b"secret\n", Ok("secret")),
            (b" secret \r\n\n", Ok("secret")),
            (b"", Err("it is empty")),
            (b"\n", Err("it is empty")),
            (b"two\nlines\n", Err("white space")),
            (b"nul\0\n", Err("control characters")),
            (b"\xff", Err("UTF-8")),
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
    fn a_token_of_the_kubeconfig_is_read_as_one_of_a_file() {
        let rows = [
            ("secret", Ok("secret")),
            ("secret\n", Ok("secret")),
            ("\n", Err("it is empty")),
            ("two\nlines", Err("white space")),
        ];
        for (token, expected) in rows {
            let mut user = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            match (prepare(&mut user), expected) {
                (Ok(()), Ok(expected)) => assert_eq!(inline_token(&user).as_deref(), Some(expected)),
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
    fn a_file_that_is_replaced_has_changed() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("token");
        let mut files = CredentialFiles::default();
        files.add(&path);
        assert!(!files.have_changed());
        fs::write(&path, "a").expect("it can be written");
        assert!(files.have_changed(), "it came");
    }
}
