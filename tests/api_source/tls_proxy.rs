//! A proxy that ends TLS in front of the test server, with certificates that tests make.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerCertificate {
    /// Its name or address.
    pub(crate) name: &'static str,
    /// The first and last year of its validity.
    pub(crate) years: [i32; 2],
}

impl ServerCertificate {
    pub(crate) const VALID: Self = ServerCertificate { name: "127.0.0.1", years: [2000, 2999] };
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no names");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("random numbers");
        Authority(CertifiedIssuer::self_signed(parameters, key).expect("a certificate"))
    }

    /// Returns the configuration of a TLS server with a certificate of this authority.
    pub(crate) fn server(&self, certificate: ServerCertificate) -> Arc<ServerConfig> {
        let mut parameters = CertificateParams::new(vec![certificate.name.to_owned()]).expect("a valid name");
        let [first, last] = certificate.years;
        parameters.not_before = date_time_ymd(first, 1, 1);
        parameters.not_after = date_time_ymd(last, 12, 31);
        let key = KeyPair::generate().expect("random numbers");
        let signed = parameters.signed_by(&key, &self.0).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![signed.der().clone()], key)
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }

    /// Writes a kubeconfig of a server whose certificate this authority signed, and returns its path.
    pub(crate) fn kubeconfig(&self, folder: &Path, server: SocketAddr, token: &str) -> PathBuf {
        let authority = folder.join("ca.pem");
        std::fs::write(&authority, self.0.pem()).expect("the folder can be written");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://{server}"), "certificate-authority": authority,
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = folder.join("kubeconfig");
        std::fs::write(&path, config.to_string()).expect("the folder can be written");
        path
    }
}

/// The proxy, which runs in the test's runtime.
pub(crate) struct TlsProxy {
    config: Arc<Mutex<Arc<ServerConfig>>>,
    pub(crate) address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TlsProxy {
    pub(crate) async fn start(upstream: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the listener is bound");
        let config = Arc::new(Mutex::new(config));
        let shared = Arc::clone(&config);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let config = Arc::clone(&shared.lock().unwrap_or_else(PoisonError::into_inner));
                connections.spawn(async move {
                    let mut client = TlsAcceptor::from(config).accept(client).await?;
                    let mut server = TcpStream::connect(upstream).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        TlsProxy { config, address, task }
    }

    /// Sets the certificate of new connections.
    pub(crate) fn set(&self, config: Arc<ServerConfig>) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
