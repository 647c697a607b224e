//! Faults of TLS: no object is lost, health has the error, and the source recovers without help.

use std::time::Duration;

use portcullis::source::Access;
use serde_json::json;

use crate::api_server::fault_proxy::{End, FaultProxy, ProxyFault};
use crate::follower::{Follower, service as name_of};
use crate::tls_proxy::{Authority, ServerCertificate, TlsProxy};
use crate::{eventually, server_with, service};

enum Fault {
    /// The server has this certificate of the known authority.
    Certificate(ServerCertificate),
    /// The server has a certificate of another authority.
    OtherAuthority,
    /// The bytes of TLS break so.
    Connection(ProxyFault),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_of_tls_loses_objects_or_needs_help() {
    use Fault::{Certificate, Connection, OtherAuthority};
    let valid = ServerCertificate::VALID;
    let alert = b"\x15\x03\x03\x00\x02\x02\x50".to_vec();
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server".to_vec();
    // The handshake and the head of a response are more than 800 bytes.
    let rows = [
        // What a node sees whose clock is ahead, or behind.
        ("an expired certificate", Certificate(ServerCertificate { years: [2000, 2001], ..valid }), "xpired"),
        (
            "a certificate of the future",
            Certificate(ServerCertificate { years: [2998, 2999], ..valid }),
            "not valid yet",
        ),
        (
            "a certificate of another name",
            Certificate(ServerCertificate { name: "10.9.9.9", ..valid }),
            "not valid for name",
        ),
        ("another authority", OtherAuthority, "certificate"),
        ("closed in the handshake", Connection(ProxyFault::Cut(100, End::Close)), ""),
        ("reset in the handshake", Connection(ProxyFault::Cut(100, End::Reset)), ""),
        ("silent in the handshake", Connection(ProxyFault::Cut(100, End::Hang)), ""),
        ("corrupt bytes in the handshake", Connection(ProxyFault::Corrupt(200)), ""),
        ("closed after the handshake", Connection(ProxyFault::Cut(800, End::Close)), ""),
        ("half-closed after the handshake", Connection(ProxyFault::Cut(800, End::HalfClose)), ""),
        ("silent after the handshake", Connection(ProxyFault::Cut(800, End::Hang)), ""),
        ("corrupt bytes after the handshake", Connection(ProxyFault::Corrupt(800)), ""),
        ("a TLS alert", Connection(ProxyFault::Respond(alert, End::Close)), ""),
        ("no TLS", Connection(ProxyFault::Respond(http, End::Close)), ""),
        ("closed after accept", Connection(ProxyFault::CloseOnAccept), ""),
    ];
    for (name, fault, expected) in rows {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server_with(&["a", "b", "c"]);
        let authority = Authority::new();
        let tls = TlsProxy::start(server.address(), authority.server(valid)).await;
        let proxy = FaultProxy::start("127.0.0.1", tls.address);
        let kubeconfig = Some(authority.kubeconfig(folder.path(), proxy.address(), "secret"));
        let access = Access { kubeconfig, master: None, ..Access::default() };
        let mut follower = Follower::start(name, access, &["a", "b", "c"]).await;
        eventually(name, || server.watches() > 0).await;
        let failures = follower.status().failures;
        match fault {
            Certificate(certificate) => tls.set(authority.server(certificate)),
            OtherAuthority => tls.set(Authority::new().server(valid)),
            Connection(fault) => proxy.set(Some(fault)),
        }
        server.disconnect_all();
        // The first failure is the interruption, the others are the fault.
        let error = follower.until_error(expected, failures + 2).await;
        server.apply(service("d", json!({})));
        follower.observe(Duration::from_millis(200)).await;
        tls.set(authority.server(valid));
        proxy.set(None);
        let recovery = follower.until("the change", |index| index.service(&name_of("d")).is_some()).await;
        eventually(&format!("{name}: no error remains"), || follower.status().error.is_none()).await;
        println!("{name:34} {:5} ms  {error}", recovery.as_millis());
    }
}

/// The authority, the server's certificate and the token are replaced together, as when a cluster rotates everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_authority_and_token_are_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server_with(&["a"]);
    server.require_token("first");
    let (first, second) = (Authority::new(), Authority::new());
    let tls = TlsProxy::start(server.address(), first.server(ServerCertificate::VALID)).await;
    let kubeconfig = Some(first.kubeconfig(folder.path(), tls.address, "first"));
    let access = Access { kubeconfig, master: None, ..Access::default() };
    let mut follower = Follower::start("rotation", access, &["a"]).await;
    tls.set(second.server(ServerCertificate::VALID));
    server.require_token("second");
    server.disconnect_all();
    follower.until_error("certificate", 0).await;
    server.apply(service("d", json!({})));
    second.kubeconfig(folder.path(), tls.address, "second");
    follower.until("the change", |index| index.service(&name_of("d")).is_some()).await;
}
