//! Many probes at a time from one thread: sockets that do not wait, polled together.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::conversation::why_forbidden;
use crate::plan::Protocol;
use crate::probe::Outcome;
use crate::socket;

/// One probe: a connection with a question, or a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shot {
    pub(crate) protocol: Protocol,
    /// Where it comes from; the port may be that of other shots, as long as they go elsewhere.
    pub(crate) from: Option<SocketAddr>,
    pub(crate) to: SocketAddr,
    pub(crate) patience: Duration,
    /// Whether a datagram is sent again while nothing comes. A stream does so by itself, after a second at first.
    pub(crate) insist: bool,
}

/// What came of a shot.
#[derive(Debug)]
pub(crate) struct Landed {
    /// What the shot was called.
    pub(crate) id: usize,
    pub(crate) outcome: Outcome,
    pub(crate) fired: Instant,
    pub(crate) took: Duration,
}

/// The probes that are under way. Their sockets are opened in the namespace of the calling thread.
#[derive(Debug, Default)]
pub(crate) struct Volley {
    flying: Vec<Flight>,
    landed: Vec<Landed>,
}

#[derive(Debug)]
struct Flight {
    id: usize,
    fired: Instant,
    until: Instant,
    patience: Duration,
    word: String,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    /// Until the connection is there, nothing can be received.
    Stream { stream: TcpStream, received: Option<Vec<u8>> },
    Datagram {
        socket: UdpSocket,
        /// When to send it again, and how long to wait after that.
        again: Instant,
        gap: Duration,
    },
}

/// The first datagram that is sent again is so after this part of a shot's patience, each next after twice the time.
const GAPS: u32 = 8;

impl Volley {
    /// How many are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.flying.len()
    }

    /// Starts a probe.
    pub(crate) fn fire(&mut self, id: usize, shot: &Shot) {
        let fired = Instant::now();
        let word = format!("shot#{id}");
        let patience = shot.patience;
        match open(shot, &word, fired) {
            Ok(socket) => {
                self.flying.push(Flight { id, fired, until: fired + patience, patience, word, socket })
            }
            Err(error) => self.land(id, fired, Outcome::of_error(&error)),
        }
    }

    /// Waits until something has landed, at most until a time or the end of all patience.
    pub(crate) fn wait(&mut self, until: Instant) -> Vec<Landed> {
        while self.landed.is_empty() && !self.flying.is_empty() {
            let now = Instant::now();
            let next = self.flying.iter().map(Flight::due).min().unwrap_or(until).min(until);
            let ready = poll(self.flying.iter().map(Flight::polled), next.saturating_duration_since(now));
            let now = Instant::now();
            for (flight, ready) in std::mem::take(&mut self.flying).into_iter().zip(ready) {
                self.go_on(flight, ready, now);
            }
            if now >= until {
                break;
            }
        }
        std::mem::take(&mut self.landed)
    }

    fn go_on(&mut self, mut flight: Flight, ready: bool, now: Instant) {
        let was_connected = flight.socket.is_connected();
        let outcome = match ready {
            true => flight.socket.read(&flight.word),
            false => flight.socket.send_again(&flight.word, now),
        };
        if !was_connected && flight.socket.is_connected() {
            // The answer gets the same time again: on a busy machine the connection alone may have used it up.
            flight.until = now + flight.patience;
        }
        match outcome {
            Some(outcome) => self.land(flight.id, flight.fired, outcome),
            None if now >= flight.until => self.land(flight.id, flight.fired, Outcome::TimedOut),
            None => self.flying.push(flight),
        }
    }

    fn land(&mut self, id: usize, fired: Instant, outcome: Outcome) {
        self.landed.push(Landed { id, outcome, fired, took: fired.elapsed() });
    }
}

impl Flight {
    /// When something must be done, whatever comes.
    fn due(&self) -> Instant {
        match &self.socket {
            Socket::Datagram { again, .. } => self.until.min(*again),
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

fn open(shot: &Shot, word: &str, now: Instant) -> io::Result<Socket> {
    let fd = socket::open(shot.protocol, shot.to, libc::SOCK_NONBLOCK)?;
    if let Some(from) = shot.from {
        socket::share_port(&fd)?;
        socket::bind(&fd, from)?;
    }
    match socket::connect(&fd, shot.to) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    match shot.protocol {
        Protocol::Tcp | Protocol::Sctp => Ok(Socket::Stream { stream: fd.into(), received: None }),
        Protocol::Udp => {
            let socket = UdpSocket::from(fd);
            send(&socket, word)?;
            let gap = if shot.insist { shot.patience / GAPS } else { shot.patience * 2 };
            Ok(Socket::Datagram { socket, again: now + gap, gap })
        }
    }
}

/// Sends a datagram; where there is no room for it, it is as one that got lost.
fn send(socket: &UdpSocket, word: &str) -> io::Result<()> {
    match socket.send(word.as_bytes()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(why_forbidden(socket, error)),
    }
}

impl Socket {
    fn is_connected(&self) -> bool {
        !matches!(self, Self::Stream { received: None, .. })
    }

    /// Takes what has come; `None` when that is not all.
    fn read(&mut self, word: &str) -> Option<Outcome> {
        match self {
            Self::Stream { stream, received } => {
                let step = match received {
                    None => ask(stream, word).map(|()| {
                        *received = Some(Vec::new());
                        None
                    }),
                    Some(received) => read_line(stream, received),
                };
                match step {
                    Ok(line) => line.map(|line| Outcome::of_reply(&line)),
                    Err(error) => Some(Outcome::of_error(&error)),
                }
            }
            Self::Datagram { socket, .. } => {
                let mut datagram = [0; 512];
                match socket.recv(&mut datagram) {
                    Ok(length) => {
                        let line = String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned();
                        line.ends_with(word).then(|| Outcome::of_reply(&line))
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                    Err(error) => Some(Outcome::of_error(&error)),
                }
            }
        }
    }

    /// Sends a datagram again when it is time.
    fn send_again(&mut self, word: &str, now: Instant) -> Option<Outcome> {
        let Self::Datagram { socket, again, gap } = self else { return None };
        if now < *again {
            return None;
        }
        *gap *= 2;
        *again = now + *gap;
        send(socket, word).err().map(|error| Outcome::of_error(&error))
    }
}

fn ask(stream: &mut TcpStream, word: &str) -> io::Result<()> {
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

/// Which of the sockets have something to say, after at most this time.
fn poll(polled: impl Iterator<Item = libc::pollfd>, wait: Duration) -> Vec<bool> {
    let mut polled: Vec<libc::pollfd> = polled.collect();
    let count = libc::nfds_t::try_from(polled.len()).expect("a number of sockets fits");
    // Rounded up, or the last millisecond would be spent in turning round.
    let millis = libc::c_int::try_from(wait.as_millis() + 1).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer and the count describe the vector, which outlives the call.
    let answer = unsafe { libc::poll(polled.as_mut_ptr(), count, millis) };
    polled.iter().map(|entry| answer > 0 && entry.revents != 0).collect()
}
