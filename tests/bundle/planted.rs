//! Secrets in every input of `portcullis bundle`.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64_NOPAD};

use crate::archive::Archive;

/// Secrets, each with the input in which it is.
pub(crate) struct Planted {
    folder: PathBuf,
}

/// Every input with a secret.
const INPUTS: [&str; 26] = [
    "environment",
    "comment of another program",
    "flag of the daemon",
    "metrics",
    "configz",
    "healthz",
    "address of the API server",
    "kubeconfig token",
    "kubeconfig password",
    "kubeconfig client key",
    "kubeconfig certificate",
    "kubeconfig authority",
    "kubeconfig exec variable",
    "kubeconfig proxy",
    "kubeconfig auth provider",
    "token file",
    "key file",
    "Secret data",
    "Secret stringData",
    "malformed Secret",
    "annotation",
    "log bearer",
    "log password",
    "log PEM",
    "log manifest",
    "configuration file",
];

impl Planted {
    /// Writes the files into a folder.
    pub(crate) fn new(folder: &Path) -> Planted {
        let planted = Planted { folder: folder.to_owned() };
        let secret = |input: &str| planted.secret(input);
        let pem = |kind: &str, input: &str| {
            let body =
                BASE64.encode(format!("{} in a {kind}, which has some length", secret(input)).as_bytes());
            format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n")
        };
        let data = |text: String| BASE64.encode(text.as_bytes());
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("it can be written");
        };
        write("token", secret("token file"));
        write("key.pem", pem("PRIVATE KEY", "key file"));
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {
                "server": "https://127.0.0.1:9",
                "proxy-url": format!("http://user:{}@127.0.0.1:9", secret("kubeconfig proxy")),
                "certificate-authority-data": data(pem("CERTIFICATE", "kubeconfig authority")),
            }}],
            "users": [{"name": "a", "user": {
                "token": secret("kubeconfig token"),
                "tokenFile": "token",
                "password": secret("kubeconfig password"),
                "client-key": "key.pem",
                "client-key-data": data(pem("PRIVATE KEY", "kubeconfig client key")),
                "client-certificate-data": data(pem("CERTIFICATE", "kubeconfig certificate")),
                "auth-provider": {"name": "x", "config": {"refresh": secret("kubeconfig auth provider")}},
                "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin",
                    "env": [{"name": "SOME", "value": secret("kubeconfig exec variable")}],
                    "interactiveMode": "Never"},
            }}],
        });
        write("kubeconfig", kubeconfig.to_string());
        write(
            "manifests/objects.yaml",
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: a, namespace: b}}\ndata: {{db: {}}}\n\
                 stringData: {{url: {}}}\n---\n\
                 apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  annotations: {{note: {}}}\n\
                 spec: {{clusterIP: 10.96.0.10, ports: [{{port: 80}}]}}\n---\n\
                 apiVersion: v1\nkind: Node\nmetadata: {{name: node-1}}\n",
                data(secret("Secret data")),
                secret("Secret stringData"),
                secret("annotation"),
            ),
        );
        write(
            "manifests/malformed.yaml",
            format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: c\ndata:\n  db: {}\n",
                secret("malformed Secret")
            ),
        );
        write(
            "invalid.yaml",
            format!(
                "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\npassword: {}\nmode: nftables\n",
                secret("configuration file")
            ),
        );
        // What a log may quote: messages of servers and plugins, and each known secret in base64.
        let mut log = format!(
            "the log says: request with Authorization: Bearer {}\nplugin failed: {{\"password\": \"{}\"}}\n{}\
             kubectl.kubernetes.io/last-applied-configuration: {{\"x\": \"{}\"}}\n",
            secret("log bearer"),
            secret("log password"),
            pem("RSA PRIVATE KEY", "log PEM"),
            secret("log manifest"),
        );
        for input in
            ["kubeconfig token", "kubeconfig exec variable", "token file", "environment", "Secret data"]
        {
            // These are known from their files only in some of the runs, so they are also in a form that any run recognizes.
            log += &format!("token={} {}\n", secret(input), BASE64_NOPAD.encode(b"harmless text"));
        }
        write("daemon.log", log);
        // Secrets of the kubeconfig without any surrounding by which they could be recognized.
        let mut bare = secret("environment");
        let known = ["kubeconfig token", "kubeconfig exec variable", "kubeconfig password", "token file"];
        for secret in known.map(secret) {
            bare += &format!("\n{secret} x{secret}x {}\n", data(format!("a{secret}b")));
            bare += &format!("{} {}", data(secret.clone()), data(format!("ab{secret}")));
        }
        write("bare.log", bare);
        planted
    }

    /// Returns the secret of an input.
    pub(crate) fn secret(&self, input: &str) -> String {
        let number = INPUTS.iter().position(|known| *known == input).unwrap_or_else(|| panic!("{input}"));
        format!("pl4nted-{number:02}-{:08x}", 0x9e37_79b9_u32.wrapping_mul(number as u32 + 1))
    }

    /// Returns a document with the secret of an input.
    pub(crate) fn json(&self, input: &str) -> String {
        serde_json::json!({"clientConnection": {"token": self.secret(input)}, "healthy": true}).to_string()
    }

    /// Returns the path of a file.
    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Fails if a secret is in the archive or in the messages, plain or in base64.
    pub(crate) fn assert_absent(&self, name: &str, archive: &Archive, messages: &str) {
        for (file, text) in &archive.files {
            let decoded = decoded(text);
            for input in INPUTS {
                let secret = self.secret(input);
                assert!(!file.contains(&secret), "{name}: {input} in the name {file}");
                assert!(!text.contains(&secret), "{name}: {input} in {file}:\n{text}");
                assert!(!decoded.contains(&secret), "{name}: {input} in base64 in {file}:\n{text}");
            }
        }
        for input in INPUTS {
            assert!(!messages.contains(&self.secret(input)), "{name}: {input} in the messages:\n{messages}");
        }
    }
}

/// Returns what all runs of characters of base64 may encode, from each of their first four characters.
fn decoded(text: &str) -> String {
    let is_encoding = |c: char| c.is_ascii_alphanumeric() || "+/-_".contains(c);
    let mut all = String::new();
    for run in text.split(|c| !is_encoding(c)).filter(|run| run.len() >= 12) {
        let run = run.replace('-', "+").replace('_', "/");
        for start in 0..4 {
            let run = &run[start..];
            let whole = &run[..run.len() / 4 * 4];
            let bytes = BASE64_NOPAD.decode(whole.as_bytes()).unwrap_or_default();
            all.push_str(&String::from_utf8_lossy(&bytes));
            all.push('\n');
        }
    }
    all
}
