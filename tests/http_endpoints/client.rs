//! HTTP/1.1 client that returns responses unchanged, including the case of header names.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A response, without its `Date` header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Requests a path with `Connection: close`, as the recorder of kube-proxy's responses did.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<Response> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut response = String::new();
        stream.read_to_string(&mut response).await?;
        Ok(parse(&response))
    };
    timeout(Duration::from_secs(10), talk).await?
}

fn parse(response: &str) -> Response {
    let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers = lines.filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name != "Date");
    Response {
        status: status.parse().expect("a status"),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// Repeats a request until the response satisfies `is_expected`, for at most ten seconds.
pub(crate) async fn until(
    address: SocketAddr,
    path: &str,
    is_expected: impl Fn(&io::Result<Response>) -> bool,
) {
    for _ in 0..200 {
        let response = get(address, path).await;
        if is_expected(&response) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{address}{path}: unexpected response after ten seconds: {:?}", get(address, path).await);
}
