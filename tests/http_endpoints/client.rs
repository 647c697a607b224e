//! An HTTP/1.1 client that shows an answer as it came, with the headers as they were spelled.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// An answer, without its `Date`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Asks for a path and has the connection closed, as kube-proxy's recorder did.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<Answer> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(parse(&answer))
    };
    timeout(Duration::from_secs(10), talk).await?
}

fn parse(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers = lines.filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name != "Date");
    Answer {
        status: status.parse().expect("a status"),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

/// Asks until the answer is as wanted, for at most ten seconds.
pub(crate) async fn until(address: SocketAddr, path: &str, wanted: impl Fn(&io::Result<Answer>) -> bool) {
    for _ in 0..200 {
        let answer = get(address, path).await;
        if wanted(&answer) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{address}{path} did not come to answer as wanted: {:?}", get(address, path).await);
}
