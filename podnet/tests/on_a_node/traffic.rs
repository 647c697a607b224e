//! Servers that reply with their name and the client's address, and clients.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::node::Node;

const PATIENCE: Duration = Duration::from_secs(5);
/// The wait for a reply that must not come.
const SILENCE: Duration = Duration::from_millis(400);

/// Starts a server for TCP and UDP in a namespace.
pub(crate) fn serve(node: &Node, name: &'static str, port: u16) {
    let (ready, is_ready) = mpsc::channel();
    for is_tcp in [true, false] {
        let ready = ready.clone();
        node.spawn(name, move || {
            let reply = |peer: SocketAddr| format!("{name} {}", peer.ip().to_canonical());
            if is_tcp {
                let listener = TcpListener::bind(("::", port)).expect("a free port");
                ready.send(()).expect("a waiting test");
                loop {
                    let Ok((mut stream, peer)) = listener.accept() else { return };
                    let _ = stream.write_all(reply(peer).as_bytes());
                }
            }
            let socket = UdpSocket::bind(("::", port)).expect("a free port");
            ready.send(()).expect("a waiting test");
            let mut buffer = [0; 100];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let request = String::from_utf8_lossy(&buffer[..length]);
                let _ = socket.send_to(format!("{} {request}", reply(peer)).as_bytes(), peer);
            }
        });
    }
    (0..2).for_each(|_| is_ready.recv().expect("a server"));
}

/// Returns the reply to a new connection, or an error in words.
pub(crate) fn tcp(node: &Node, from: &str, to: &str, port: u16) -> String {
    let to = SocketAddr::new(to.parse::<IpAddr>().expect("an address"), port);
    node.inside(from, move || {
        let connect = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        connect().unwrap_or_else(|error| match error.kind() {
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "no reply".to_owned(),
            _ => error.to_string(),
        })
    })
}

/// Returns the reply to a datagram from a new socket.
pub(crate) fn udp(node: &Node, from: &str, to: &str, port: u16) -> String {
    let any = if to.contains(':') { "::" } else { "0.0.0.0" };
    let socket = node.inside(from, move || UdpSocket::bind((any, 0)).expect("a socket"));
    datagram(&socket, to, port, true)
}

/// Returns the reply to a datagram from this socket. Replies to earlier datagrams, which may have waited for a neighbour, are ignored.
pub(crate) fn datagram(socket: &UdpSocket, to: &str, port: u16, expects_reply: bool) -> String {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let request = format!("#{}", SENT.fetch_add(1, Ordering::Relaxed));
    let end = Instant::now() + if expects_reply { PATIENCE } else { SILENCE };
    let to = SocketAddr::new(to.parse().expect("an address"), port);
    let mut buffer = [0; 100];
    let mut exchange = || -> std::io::Result<String> {
        socket.send_to(request.as_bytes(), to)?;
        loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            socket.set_read_timeout(Some(left))?;
            let length = socket.recv(&mut buffer)?;
            let reply = String::from_utf8_lossy(&buffer[..length]);
            if let Some((reply, of)) = reply.rsplit_once(' ')
                && of == request
            {
                return Ok(reply.to_owned());
            }
        }
    };
    match exchange() {
        Ok(reply) => reply,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            "no reply".to_owned()
        }
        Err(error) => error.to_string(),
    }
}
