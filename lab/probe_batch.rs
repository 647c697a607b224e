//! Concurrent probes from one thread, with non-blocking sockets and `poll`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::echo_client::pending_error_for;
use crate::plan::Protocol;
use crate::probe::ProbeOutcome;
use crate::socket;

/// One probe: a connection with one exchange, or a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProbeRequest {
    pub(crate) protocol: Protocol,
    /// The source address. Probes with different destinations may share a source port.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
    pub(crate) timeout: Duration,
    /// Whether to retransmit a datagram until the reply. TCP and SCTP retransmit by themselves, first after a second.
    pub(crate) retransmit: bool,
}

/// Outcome of a probe.
#[derive(Debug)]
pub(crate) struct CompletedProbe {
    /// The id given to [`ProbeBatch::start`].
    pub(crate) id: usize,
    pub(crate) outcome: ProbeOutcome,
    pub(crate) started: Instant,
    pub(crate) duration: Duration,
}

/// Probes in flight. Their sockets are opened in the namespace of the calling thread.
#[derive(Debug, Default)]
pub(crate) struct ProbeBatch {
    in_flight: Vec<ProbeInFlight>,
    completed: Vec<CompletedProbe>,
}

#[derive(Debug)]
struct ProbeInFlight {
    id: usize,
    started: Instant,
    until: Instant,
    timeout: Duration,
    word: String,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    /// `received` is `None` until the connection is established.
    Stream { stream: TcpStream, received: Option<Vec<u8>> },
    Datagram {
        socket: UdpSocket,
        /// Time of the next retransmission, and the interval after it.
        retransmit_at: Instant,
        interval: Duration,
    },
}

/// A datagram is first retransmitted after the timeout divided by this, then after intervals that double.
const RETRANSMIT_DIVISOR: u32 = 8;

impl ProbeBatch {
    /// Returns the number of probes in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Starts a probe.
    pub(crate) fn start(&mut self, id: usize, request: &ProbeRequest) {
        let started = Instant::now();
        let word = format!("request#{id}");
        let timeout = request.timeout;
        match open(request, &word, started) {
            Ok(socket) => self.in_flight.push(ProbeInFlight {
                id,
                started,
                until: started + timeout,
                timeout,
                word,
                socket,
            }),
            Err(error) => self.complete(id, started, ProbeOutcome::from_error(&error)),
        }
    }

    /// Waits until a probe completes, at most until a time.
    pub(crate) fn wait(&mut self, until: Instant) -> Vec<CompletedProbe> {
        while self.completed.is_empty() && !self.in_flight.is_empty() {
            let now = Instant::now();
            let next = self.in_flight.iter().map(ProbeInFlight::due).min().unwrap_or(until).min(until);
            let ready =
                poll(self.in_flight.iter().map(ProbeInFlight::polled), next.saturating_duration_since(now));
            let now = Instant::now();
            for (probe, ready) in std::mem::take(&mut self.in_flight).into_iter().zip(ready) {
                self.advance(probe, ready, now);
            }
            if now >= until {
                break;
            }
        }
        std::mem::take(&mut self.completed)
    }

    fn advance(&mut self, mut probe: ProbeInFlight, ready: bool, now: Instant) {
        let was_connected = probe.socket.is_connected();
        let outcome = match ready {
            true => probe.socket.read(&probe.word),
            false => probe.socket.retransmit(&probe.word, now),
        };
        if !was_connected && probe.socket.is_connected() {
            // The timeout restarts for the reply: on a busy machine the connection may have used most of it.
            probe.until = now + probe.timeout;
        }
        match outcome {
            Some(outcome) => self.complete(probe.id, probe.started, outcome),
            None if now >= probe.until => self.complete(probe.id, probe.started, ProbeOutcome::TimedOut),
            None => self.in_flight.push(probe),
        }
    }

    fn complete(&mut self, id: usize, started: Instant, outcome: ProbeOutcome) {
        self.completed.push(CompletedProbe { id, outcome, started, duration: started.elapsed() });
    }
}

impl ProbeInFlight {
    /// Returns the time of the next timeout or retransmission.
    fn due(&self) -> Instant {
        match &self.socket {
            Socket::Datagram { retransmit_at, .. } => self.until.min(*retransmit_at),
            _ => self.until,
        }
    }

    fn polled(&self) -> libc::pollfd {
        let (fd, events): (RawFd, _) = match &self.socket {
            Socket::Stream { stream, received: None } => (stream.as_raw_fd(), libc::POLLOUT),
            Socket::Stream { stream, .. } => (stream.as_raw_fd(), libc::POLLIN),
            Socket::Datagram { socket, .. } => (socket.as_raw_fd(), libc::POLLIN),
        };
        libc::pollfd { fd, events, revents: 0 }
    }
}

fn open(request: &ProbeRequest, word: &str, now: Instant) -> io::Result<Socket> {
    let fd = socket::open(request.protocol, request.to, libc::SOCK_NONBLOCK)?;
    if let Some(from) = request.from {
        socket::reuse_address(&fd)?;
        socket::bind(&fd, from)?;
    }
    match socket::connect(&fd, request.to) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    match request.protocol {
        Protocol::Tcp | Protocol::Sctp => Ok(Socket::Stream { stream: fd.into(), received: None }),
        Protocol::Udp => {
            let socket = UdpSocket::from(fd);
            send(&socket, word)?;
            let interval =
                if request.retransmit { request.timeout / RETRANSMIT_DIVISOR } else { request.timeout * 2 };
            Ok(Socket::Datagram { socket, retransmit_at: now + interval, interval })
        }
    }
}

/// Sends a datagram. If the send buffer is full, the datagram counts as lost.
fn send(socket: &UdpSocket, word: &str) -> io::Result<()> {
    match socket.send(word.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(pending_error_for(socket, error)),
    }
}

impl Socket {
    fn is_connected(&self) -> bool {
        !matches!(self, Self::Stream { received: None, .. })
    }

    /// Reads from the socket; `None` if the reply is not complete.
    fn read(&mut self, word: &str) -> Option<ProbeOutcome> {
        match self {
            Self::Stream { stream, received } => {
                let step = match received {
                    None => send_word(stream, word).map(|()| {
                        *received = Some(Vec::new());
                        None
                    }),
                    Some(received) => read_line(stream, received),
                };
                match step {
                    Ok(line) => line.map(|line| ProbeOutcome::from_reply(&line)),
                    Err(error) => Some(ProbeOutcome::from_error(&error)),
                }
            }
            Self::Datagram { socket, .. } => {
                let mut datagram = [0; 512];
                match socket.recv(&mut datagram) {
                    Ok(length) => {
                        let line = String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned();
                        line.ends_with(word).then(|| ProbeOutcome::from_reply(&line))
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) => Some(ProbeOutcome::from_error(&error)),
                }
            }
        }
    }

    /// Retransmits a datagram if it is due.
    fn retransmit(&mut self, word: &str, now: Instant) -> Option<ProbeOutcome> {
        let Self::Datagram { socket, retransmit_at, interval } = self else { return None };
        if now < *retransmit_at {
            return None;
        }
        *interval *= 2;
        *retransmit_at = now + *interval;
        send(socket, word).err().map(|error| ProbeOutcome::from_error(&error))
    }
}

fn send_word(stream: &mut TcpStream, word: &str) -> io::Result<()> {
    socket::take_error(stream)?;
    socket::reset_on_close(stream)?;
    stream.write_all(format!("{word}\n").as_bytes())
}

fn read_line(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<String>> {
    let mut bytes = [0; 512];
    match stream.read(&mut bytes) {
        Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
        Ok(read) => received.extend_from_slice(&bytes[..read]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error),
    }
    let end = received.iter().position(|byte| *byte == b'\n');
    Ok(end.map(|end| String::from_utf8_lossy(&received[..end]).trim_end().to_owned()))
}

/// Waits for events at most for `wait`; returns for each socket whether it has one.
fn poll(polled: impl Iterator<Item = libc::pollfd>, wait: Duration) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> = polled.collect();
    let count = libc::nfds_t::try_from(polled.len()).expect("a number of sockets fits");
    // Rounded up, to avoid a busy loop in the last millisecond.
    let millis = libc::c_int::try_from(wait.as_millis() + 1).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer and the count describe the vector, which outlives the call.
    let result = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    polled.iter().map(|entry| result > 0 && entry.revents != 0).collect()
}
