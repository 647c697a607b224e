//! Continuous traffic during changes, with a log of which probes were lost when.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::echo_client::pending_error_for;
use crate::error::{Error, Result};
use crate::plan::Protocol;
use crate::probe::{ProbeOutcome, ProbeTally, Prober};
use crate::probe_batch::{CompletedProbe, ProbeBatch, ProbeRequest};

/// Rate and timeouts of generated traffic.
#[derive(Debug, Clone, Copy)]
pub struct TrafficOptions {
    /// Interval between the starts of two probes; 5 ms by default.
    pub interval: Duration,
    /// Timeout of each probe; 500 ms by default.
    pub timeout: Duration,
    /// Maximum number of probes in flight; 256 by default.
    pub max_in_flight: usize,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self { interval: Duration::from_millis(5), timeout: Duration::from_millis(500), max_in_flight: 256 }
    }
}

/// Sends probes from a thread of its own until [`stop`](Self::stop) or until it is dropped.
#[derive(Debug)]
pub struct TrafficGenerator {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<TrafficProbe>>>,
    description: String,
}

/// One probe of generated traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficProbe {
    /// Time of sending.
    pub sent_at: Instant,
    /// Time until the outcome was known.
    pub duration: Duration,
    /// The outcome.
    pub outcome: ProbeOutcome,
}

/// All probes of generated traffic, in the order of sending.
#[derive(Debug, Clone)]
pub struct TrafficLog {
    /// Source, destination and kind of the traffic.
    pub description: String,
    /// The probes.
    pub probes: Vec<TrafficProbe>,
}

impl Prober {
    /// Starts opening new connections to an address continuously. With UDP, each is one datagram, from a port that none of
    /// the last 10,000 used.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn connections(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        options: TrafficOptions,
    ) -> Result<TrafficGenerator> {
        let source = self.source_address(to);
        let description = format!("new connections from {} to {to}/{protocol}", self.netns().name());
        self.start(description, move |stop| connect_until_stopped(protocol, source, to, options, stop))
    }

    /// Starts sending numbered datagrams of one UDP flow continuously.
    ///
    /// # Errors
    /// The socket cannot be opened, e.g. because the namespace does not have the source address.
    pub fn datagrams(&self, to: SocketAddr, options: TrafficOptions) -> Result<TrafficGenerator> {
        let source = self.source_address(to);
        let opened = self.netns().run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
            socket.connect(to)?;
            Ok(socket)
        })?;
        let socket = opened.map_err(|source| Error::system(format!("cannot open UDP to {to}"), source))?;
        let description = format!("datagrams of one flow from {} to {to}/UDP", self.netns().name());
        self.start(description, move |stop| send_until_stopped(&socket, options, stop))
    }

    fn start(
        &self,
        description: String,
        work: impl FnOnce(&AtomicBool) -> Vec<TrafficProbe> + Send + 'static,
    ) -> Result<TrafficGenerator> {
        let stop = Arc::new(AtomicBool::new(false));
        let (netns, stop_flag) = (self.netns().clone(), Arc::clone(&stop));
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let entered = netns.enter();
            let is_inside = entered.is_ok();
            // The caller waits for this result.
            let _ = sender.send(entered);
            if is_inside { work(&stop_flag) } else { Vec::new() }
        });
        let entered = receiver.recv().unwrap_or_else(|_| {
            let interrupted = io::Error::from(ErrorKind::Interrupted);
            Err(Error::system("the traffic thread exited", interrupted))
        });
        entered.map(|()| TrafficGenerator { stop, thread: Some(thread), description })
    }
}

impl TrafficGenerator {
    /// Stops sending, waits for probes in flight, and returns the log.
    pub fn stop(mut self) -> TrafficLog {
        let probes = self.end();
        TrafficLog { description: std::mem::take(&mut self.description), probes }
    }

    fn end(&mut self) -> Vec<TrafficProbe> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Vec::new() };
        let mut probes = match thread.join() {
            Ok(probes) => probes,
            // A second panic during unwinding would abort.
            Err(_) if thread::panicking() => Vec::new(),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        probes.sort_by_key(|probe| probe.sent_at);
        probes
    }
}

impl Drop for TrafficGenerator {
    fn drop(&mut self) {
        self.end();
    }
}

impl TrafficLog {
    /// Returns the probes without a response.
    pub fn lost(&self) -> Vec<&TrafficProbe> {
        self.probes.iter().filter(|probe| probe.outcome.responder().is_none()).collect()
    }

    /// Returns the probes with a response.
    pub fn answered(&self) -> Vec<&TrafficProbe> {
        self.probes.iter().filter(|probe| probe.outcome.responder().is_some()).collect()
    }

    /// Returns the log of the probes sent from one time until another.
    pub fn between(&self, from: Instant, until: Instant) -> Self {
        let probes = self.probes.iter().filter(|probe| (from..until).contains(&probe.sent_at));
        Self { description: self.description.clone(), probes: probes.cloned().collect() }
    }

    /// Returns counts of the outcomes.
    pub fn tally(&self) -> ProbeTally {
        self.probes.iter().map(|probe| probe.outcome.clone()).collect()
    }
}

impl fmt::Display for TrafficLog {
    /// Writes runs of answered and lost probes with their start: `120 answered from 0.000 s; 3 lost from 0.612 s; …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.description)?;
        let Some(first) = self.probes.first() else { return f.write_str(" nothing was sent") };
        let has_response = |probe: &TrafficProbe| probe.outcome.responder().is_some();
        for run in self.probes.chunk_by(|a, b| has_response(a) == has_response(b)) {
            let word = if has_response(&run[0]) { "answered" } else { "lost" };
            let since = run[0].sent_at.duration_since(first.sent_at).as_secs_f64();
            write!(f, " {} {word} from {since:.3} s;", run.len())?;
        }
        Ok(())
    }
}

/// Source ports for UDP, below those of matrices and the kernel's ephemeral ports.
const PORTS: std::ops::Range<u16> = 1_100..11_900;

fn connect_until_stopped(
    protocol: Protocol,
    source: IpAddr,
    to: SocketAddr,
    options: TrafficOptions,
    stop: &AtomicBool,
) -> Vec<TrafficProbe> {
    let (mut batch, mut probes) = (ProbeBatch::default(), Vec::new());
    let mut ports = PORTS.cycle();
    let mut next = Instant::now();
    let mut count = 0;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped && batch.in_flight() == 0 {
            break;
        }
        if !stopped && Instant::now() >= next && batch.in_flight() < options.max_in_flight.max(1) {
            let port = if protocol == Protocol::Udp { ports.next().unwrap_or_default() } else { 0 };
            let from = Some(SocketAddr::new(source, port));
            next = (next + options.interval).max(Instant::now());
            batch.start(
                count,
                &ProbeRequest { protocol, from, to, timeout: options.timeout, retransmit: false },
            );
            count += 1;
        }
        let until = if stopped || batch.in_flight() >= options.max_in_flight.max(1) {
            Instant::now() + Duration::from_millis(50)
        } else {
            next
        };
        probes.extend(batch.wait(until).into_iter().map(TrafficProbe::from));
        if batch.in_flight() == 0 {
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    probes.extend(batch.wait(Instant::now()).into_iter().map(TrafficProbe::from));
    probes
}

impl From<CompletedProbe> for TrafficProbe {
    fn from(completed: CompletedProbe) -> Self {
        let CompletedProbe { outcome, started, duration, .. } = completed;
        Self { sent_at: started, duration, outcome }
    }
}

fn send_until_stopped(socket: &UdpSocket, options: TrafficOptions, stop: &AtomicBool) -> Vec<TrafficProbe> {
    let mut sent: Vec<TrafficProbe> = Vec::new();
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next && !stop.load(Ordering::Relaxed) {
            let result = socket.send(format!("datagram#{}", sent.len()).as_bytes());
            let outcome = match result.map_err(|error| pending_error_for(socket, error)) {
                Ok(_) => ProbeOutcome::TimedOut,
                Err(error) => ProbeOutcome::from_error(&error),
            };
            sent.push(TrafficProbe { sent_at: now, duration: options.timeout, outcome });
            next = (next + options.interval).max(now);
        }
        let over = |sent: &TrafficProbe| {
            sent.outcome != ProbeOutcome::TimedOut || now > sent.sent_at + options.timeout
        };
        if stop.load(Ordering::Relaxed)
            && sent.iter().rev().take_while(|s| s.sent_at + options.timeout > now).all(over)
        {
            return sent;
        }
        let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // If this fails, the next read waits longer and the next datagram is sent later.
        let _ = socket.set_read_timeout(Some(wait));
        let mut datagram = [0; 512];
        // Errors are about earlier datagrams, which stay lost.
        let Ok(length) = socket.recv(&mut datagram) else { continue };
        let line = String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned();
        let number = line.rsplit('#').next().and_then(|number| number.parse::<usize>().ok());
        let Some(answered) = number.and_then(|number| sent.get_mut(number)) else { continue };
        answered.duration = answered.sent_at.elapsed();
        if answered.duration <= options.timeout {
            answered.outcome = ProbeOutcome::from_reply(&line);
        }
    }
}
