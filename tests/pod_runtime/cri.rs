//! A client of the kubelet's side of containerd: the service `runtime.v1.RuntimeService` of the Container Runtime Interface.
//!
//! <https://github.com/kubernetes/cri-api/blob/release-1.31/pkg/apis/runtime/v1/api.proto>. The few messages that the tests need are
//! encoded by hand, and `curl` carries them over HTTP/2: a gRPC library would compile an HTTP/2 stack and generated types.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::process::Stdio;

use crate::node::{Node, TIMEOUT, succeed};
use crate::protobuf::{Message, nested, number, text};

/// The state `SANDBOX_READY`.
const READY: u64 = 0;

/// The status of a pod sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) is_ready: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A client of the runtime of a node.
pub(crate) struct Cri<'a>(pub(crate) &'a Node);

impl Cri<'_> {
    /// Returns the conditions of the runtime that are not true, with their messages.
    pub(crate) fn missing_conditions(&self) -> Vec<String> {
        let response = self.call("Status", &Message::default()).expect("the runtime responds");
        let status = nested(&response, 1).concat();
        let conditions = nested(&status, 1);
        let is_missing = |condition: &&[u8]| number(condition, 2) == 0;
        let describe = |condition: &[u8]| format!("{}: {}", text(condition, 1), text(condition, 4));
        conditions.into_iter().filter(is_missing).map(describe).collect()
    }

    /// Starts the sandbox of a pod, as the kubelet does. Returns its ID, or the error of the runtime.
    pub(crate) fn run_pod_sandbox(&self, name: &str, host_port: Option<u16>) -> Result<String, String> {
        let metadata =
            Message::default().text(1, name).text(2, &format!("uid-{name}")).text(3, "default").number(4, 0);
        let mut config = Message::default().message(1, &metadata).text(2, name);
        if let Some(port) = host_port {
            let mapping = Message::default().number(1, 0).number(2, 80).number(3, port.into());
            config = config.message(5, &mapping);
        }
        let response = self.call("RunPodSandbox", &Message::default().message(1, &config))?;
        Ok(text(&response, 1))
    }

    /// Returns the status of a sandbox.
    pub(crate) fn pod_sandbox_status(&self, id: &str) -> Sandbox {
        let response = self.call("PodSandboxStatus", &Message::default().text(1, id)).expect("it exists");
        let status = nested(&response, 1).concat();
        let network = nested(&status, 5).concat();
        let others = nested(&network, 2).into_iter().map(|ip| text(ip, 1));
        let texts = [text(&network, 1)].into_iter().chain(others).filter(|ip| !ip.is_empty());
        let mut addresses: Vec<IpAddr> = texts.map(|ip| ip.parse().expect("an address")).collect();
        addresses.sort();
        Sandbox { is_ready: number(&status, 3) == READY, addresses }
    }

    /// Ends a sandbox, and removes it.
    pub(crate) fn remove_pod_sandbox(&self, id: &str) {
        for method in ["StopPodSandbox", "RemovePodSandbox"] {
            self.call(method, &Message::default().text(1, id))
                .unwrap_or_else(|error| panic!("{method}: {error}"));
        }
    }

    /// Calls a method. Returns the response, or the error of the runtime.
    fn call(&self, method: &str, request: &Message) -> Result<Vec<u8>, String> {
        let Cri(node) = self;
        let response = node.folder().join(format!("{method}.response"));
        let _ = fs::remove_file(&response);
        let mut command = node.command("curl");
        command
            .args(["--silent", "--show-error", "--http2-prior-knowledge", "--data-binary", "@-"])
            .args(["--header", "Content-Type: application/grpc", "--header", "TE: trailers"])
            // The status of a call is in the trailers.
            .args(["--dump-header", "-", "--max-time", &TIMEOUT.as_secs().to_string(), "--output"])
            .arg(&response)
            .arg("--unix-socket")
            .arg(node.folder().join("containerd.sock"))
            .arg(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("nsenter runs");
        let message = request.encoded();
        // Not compressed, and the length.
        let frame = [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
        child.stdin.take().expect("piped").write_all(&frame).expect("curl reads it");
        let headers = succeed(child.wait_with_output().expect("a child"), method);
        let header = |name: &str| {
            let mut lines = headers.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        match header("grpc-status").as_deref() {
            Some("0") => {}
            Some(_) => return Err(header("grpc-message").unwrap_or_default()),
            None => panic!("{method}: no status in {headers}"),
        }
        let body = fs::read(&response).expect("curl wrote it");
        assert_eq!(body[..1], [0], "{method}: the response is not compressed");
        Ok(body[5..].to_vec())
    }
}
