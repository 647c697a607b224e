//! A TCP proxy in front of the server, which breaks connections as networks, load balancers and other servers do.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::lock;

/// A fault of all new connections.
#[derive(Clone, Debug)]
pub(crate) enum ProxyFault {
    /// Closes connections immediately.
    CloseOnAccept,
    /// Reads requests and never responds.
    BlackHole,
    /// Responds to each request with these bytes, instead of the server.
    Respond(Vec<u8>, End),
    /// Forwards this number of bytes of the server, and then ends the connection.
    Cut(usize, End),
    /// Inverts all bytes of the server after this number.
    Corrupt(usize),
    /// Forwards one byte of the server after each pause, after this number of bytes without pauses.
    Drip(usize, Duration),
    /// Forwards the bytes of the server only when the connection of the server ends.
    Buffer,
}

/// How the proxy ends a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Closes it.
    Close,
    /// Resets it.
    Reset,
    /// Sends no more, and reads on.
    HalfClose,
    /// Leaves it open, and sends no more.
    Hang,
}

/// The proxy. Dropping it closes its port and all connections.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    fault: Arc<Mutex<Option<ProxyFault>>>,
    runtime: Option<Runtime>,
}

impl FaultProxy {
    /// Starts a proxy of this address, without faults, on a free port of `host`.
    pub(crate) fn start(host: &str, upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let address = listener.local_addr().expect("the listener is bound");
        let fault: Arc<Mutex<Option<ProxyFault>>> = Arc::default();
        let shared = Arc::clone(&fault);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a thread");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime drives sockets");
            while let Ok((client, _)) = listener.accept().await {
                let fault = lock(&shared).clone();
                tokio::spawn(serve(client, upstream, fault));
            }
        });
        FaultProxy { address, fault, runtime: Some(runtime) }
    }

    /// Sets the fault of new connections; `None` forwards them.
    pub(crate) fn set(&self, fault: Option<ProxyFault>) {
        *lock(&self.fault) = fault;
    }

    /// Returns the address on which it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    fault: Option<ProxyFault>,
) -> std::io::Result<()> {
    match fault {
        None => {
            let mut server = TcpStream::connect(upstream).await?;
            copy_bidirectional(&mut client, &mut server).await?;
            Ok(())
        }
        Some(ProxyFault::CloseOnAccept) => Ok(()),
        Some(ProxyFault::BlackHole) => discard(&mut client).await,
        Some(ProxyFault::Respond(response, end)) => loop {
            read_head(&mut client).await?;
            client.write_all(&response).await?;
            if !matches!(end, End::Hang) {
                return finish(client, end).await;
            }
        },
        Some(fault) => forward(client, upstream, fault).await,
    }
}

/// Forwards requests, and responses with the fault.
async fn forward(client: TcpStream, upstream: SocketAddr, fault: ProxyFault) -> std::io::Result<()> {
    let (mut from_server, mut to_server) = TcpStream::connect(upstream).await?.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let requests = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut buffer = vec![0; 16 << 10];
    let (mut forwarded, mut held) = (0, Vec::new());
    let end = loop {
        let length = from_server.read(&mut buffer).await?;
        let bytes = &mut buffer[..length];
        if length == 0 {
            break None;
        }
        match &fault {
            ProxyFault::Cut(limit, end) => {
                let rest = limit.saturating_sub(forwarded).min(length);
                to_client.write_all(&bytes[..rest]).await?;
                if rest < length {
                    break Some(*end);
                }
            }
            ProxyFault::Corrupt(limit) => {
                let rest = limit.saturating_sub(forwarded).min(length);
                bytes[rest..].iter_mut().for_each(|byte| *byte = !*byte);
                to_client.write_all(bytes).await?;
            }
            ProxyFault::Drip(limit, pause) => {
                let rest = limit.saturating_sub(forwarded).min(length);
                to_client.write_all(&bytes[..rest]).await?;
                for byte in &bytes[rest..] {
                    sleep(*pause).await;
                    to_client.write_all(&[*byte]).await?;
                }
            }
            _ => held.extend_from_slice(bytes),
        }
        forwarded += length;
    };
    to_client.write_all(&held).await?;
    match end {
        None => to_client.shutdown().await?,
        Some(End::HalfClose) => {
            to_client.shutdown().await?;
            requests.await.map_err(std::io::Error::other)??;
            return Ok(());
        }
        Some(End::Hang) => std::future::pending().await,
        Some(End::Reset) => reset(to_client.as_ref()),
        Some(End::Close) => {}
    }
    requests.abort();
    Ok(())
}

/// Makes the kernel send a reset when the connection is closed.
fn reset(stream: &TcpStream) {
    // Setting it fails only for a socket that is closed already.
    let _ = stream.set_zero_linger();
}

async fn finish(mut client: TcpStream, end: End) -> std::io::Result<()> {
    match end {
        End::Close => client.shutdown().await,
        End::Reset => {
            // The client reads the response before the reset.
            sleep(Duration::from_millis(20)).await;
            reset(&client);
            Ok(())
        }
        End::HalfClose => {
            client.shutdown().await?;
            discard(&mut client).await
        }
        End::Hang => discard(&mut client).await,
    }
}

async fn read_head(client: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    // A TLS handshake begins with 22, and is a request too.
    while !head.ends_with(b"\r\n\r\n") && !head.starts_with(&[22]) {
        head.push(client.read_u8().await?);
    }
    Ok(())
}

async fn discard(client: &mut TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 4 << 10];
    while client.read(&mut buffer).await? > 0 {}
    Ok(())
}
