//! The credential that an exec plugin prints.

use std::fmt;

use data_encoding::BASE64;
use jiff::Timestamp;
use kube::config::AuthInfo;
use serde_json::Value;

use crate::config::yaml_options;
use crate::source::credential_files::check_bearer_token;

/// A credential of an exec plugin: a token, a client certificate with its key, or both.
#[derive(Clone)]
pub(crate) struct ExecCredential {
    token: Option<String>,
    /// A client certificate and its key, in PEM.
    identity: Option<(String, String)>,
    /// The time after which it is invalid; `None` if it is valid until the API server rejects it.
    expires: Option<Timestamp>,
}

impl fmt::Debug for ExecCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("token", self.token.is_some()), ("certificate", self.identity.is_some())];
        let parts: Vec<&str> =
            parts.into_iter().filter_map(|(name, is_there)| is_there.then_some(name)).collect();
        write!(f, "ExecCredential({}, expires {:?})", parts.join(", "), self.expires)
    }
}

impl ExecCredential {
    /// Parses a plugin's output, in JSON or YAML as in client-go. `api_version` is that of the kubeconfig.
    ///
    /// # Errors
    /// It is not an `ExecCredential` of this version, or has no valid credential. The message has no part of a credential.
    pub(super) fn parse(output: &str, api_version: &str) -> Result<Self, String> {
        let object = parse_value(output)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().chars().take(100).collect::<String>();
        if object["kind"] != "ExecCredential" {
            return Err(format!(
                "its output has kind {:?}, expected \"ExecCredential\"",
                text(&object["kind"])
            ));
        }
        if object["apiVersion"] != api_version {
            return Err(format!(
                "its output has apiVersion {:?}, expected {api_version:?} as in the kubeconfig",
                text(&object["apiVersion"])
            ));
        }
        let status = match &object["status"] {
            Value::Object(_) => &object["status"],
            _ => {
                return Err("its output has no status, expected a token or a client certificate in it".into());
            }
        };
        let token = string(status, "token")?;
        let token =
            token.map(|token| check_bearer_token(&token).map_err(|error| format!("status.token: {error}")));
        let identity = match (string(status, "clientCertificateData")?, string(status, "clientKeyData")?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                return Err("status: expected clientCertificateData and clientKeyData together".into());
            }
        };
        let expires = string(status, "expirationTimestamp")?;
        let expires = expires.map(|time| {
            let parsed: Result<Timestamp, _> = time.parse();
            parsed.map_err(|_| "status.expirationTimestamp: invalid time, expected RFC 3339".to_owned())
        });
        let credential =
            ExecCredential { token: token.transpose()?, identity, expires: expires.transpose()? };
        if credential.token.is_none() && credential.identity.is_none() {
            return Err(
                "status: expected token, or clientCertificateData and clientKeyData; both are missing".into(),
            );
        }
        Ok(credential)
    }

    /// Returns the time after which it is invalid; `None` if that is not known.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Sets this credential in place of the plugin. A certificate and key of the kubeconfig have precedence, as in client-go.
    pub(in crate::source) fn apply(&self, user: &mut AuthInfo) {
        user.exec = None;
        if let Some(token) = &self.token {
            user.token = Some(token.clone().into());
        }
        let has_certificate = user.client_certificate.is_some() || user.client_certificate_data.is_some();
        if let (Some((certificate, key)), false) = (&self.identity, has_certificate) {
            user.client_certificate_data = Some(BASE64.encode(certificate.as_bytes()));
            user.client_key_data = Some(BASE64.encode(key.as_bytes()).into());
        }
    }
}

/// Parses JSON or YAML. Errors of the parsers may quote the text, so only the position is used.
fn parse_value(output: &str) -> Result<Value, String> {
    if output.trim().is_empty() {
        return Err("it printed nothing, expected an ExecCredential in JSON".into());
    }
    let error = match serde_json::from_str(output) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    match serde_saphyr::from_str_with_options(output, yaml_options()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(format!(
            "its output is not an ExecCredential in JSON: syntax error at line {}, column {}",
            error.line(),
            error.column()
        )),
    }
}

/// Returns a field that has text; `None` if it is missing or empty.
fn string(status: &Value, field: &str) -> Result<Option<String>, String> {
    match &status[field] {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(format!("status.{field}: expected a string")),
    }
}
