//! Traffic that goes on while something changes, and afterwards tells what was lost when.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::conversation::why_forbidden;
use crate::error::{Error, Result};
use crate::plan::Protocol;
use crate::probe::{Outcome, Prober, Tally};
use crate::volley::{Shot, Volley};

/// How fast traffic goes.
#[derive(Debug, Clone, Copy)]
pub struct TrafficOptions {
    /// From the start of one probe to that of the next; 5 ms by default.
    pub pace: Duration,
    /// How long each may take; 500 ms by default.
    pub patience: Duration,
    /// How many may be under way at a time: with 1 the next waits for the one before. 256 by default.
    pub under_way: usize,
}

impl Default for TrafficOptions {
    fn default() -> Self {
        Self { pace: Duration::from_millis(5), patience: Duration::from_millis(500), under_way: 256 }
    }
}

/// Traffic that goes on on a thread of its own, until [`stop`](Self::stop) or its end.
#[derive(Debug)]
pub struct Traffic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sent>>>,
    what: String,
}

/// One probe of the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// When it was sent.
    pub at: Instant,
    /// How long it was until the outcome was known.
    pub took: Duration,
    /// What came of it.
    pub outcome: Outcome,
}

/// All that was sent, in the order of sending.
#[derive(Debug, Clone)]
pub struct Log {
    /// Where it came from and went to.
    pub what: String,
    /// The probes.
    pub sent: Vec<Sent>,
}

impl Prober {
    /// Connections to an address one after another, each new: by UDP each is one
    /// datagram, from a port that no other of the last 10,000 had.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn connections(
        &self,
        protocol: Protocol,
        to: SocketAddr,
        options: TrafficOptions,
    ) -> Result<Traffic> {
        let source = self.source_address(to);
        let what = format!("new connections from {} to {to}/{protocol}", self.netns().name());
        self.start(what, move |stop| connect_on(protocol, source, to, options, stop))
    }

    /// Numbered datagrams of one flow.
    ///
    /// # Errors
    /// When the socket cannot be opened; its address may not be the namespace's.
    pub fn datagrams(&self, to: SocketAddr, options: TrafficOptions) -> Result<Traffic> {
        let source = self.source_address(to);
        let opened = self.netns().run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(source, 0))?;
            socket.connect(to)?;
            Ok(socket)
        })?;
        let socket = opened.map_err(|source| Error::system(format!("cannot open UDP to {to}"), source))?;
        let what = format!("datagrams of one flow from {} to {to}/UDP", self.netns().name());
        self.start(what, move |stop| send_on(&socket, options, stop))
    }

    fn start(
        &self,
        what: String,
        work: impl FnOnce(&AtomicBool) -> Vec<Sent> + Send + 'static,
    ) -> Result<Traffic> {
        let stop = Arc::new(AtomicBool::new(false));
        let (netns, seen) = (self.netns().clone(), Arc::clone(&stop));
        let (entered, told) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let inside = netns.enter();
            let go_on = inside.is_ok();
            // Whoever started it waits for this.
            let _ = entered.send(inside);
            if go_on { work(&seen) } else { Vec::new() }
        });
        let inside = told.recv().unwrap_or_else(|_| {
            let gone = io::Error::from(ErrorKind::Interrupted);
            Err(Error::system("the thread of the traffic ended at once", gone))
        });
        inside.map(|()| Traffic { stop, thread: Some(thread), what })
    }
}

impl Traffic {
    /// Ends it, after what is under way has come or its time is over.
    pub fn stop(mut self) -> Log {
        let sent = self.end();
        Log { what: std::mem::take(&mut self.what), sent }
    }

    fn end(&mut self) -> Vec<Sent> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Vec::new() };
        let mut sent = match thread.join() {
            Ok(sent) => sent,
            // A second panic while one is under way would abort.
            Err(_) if thread::panicking() => Vec::new(),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        sent.sort_by_key(|sent| sent.at);
        sent
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

impl Log {
    /// What was not answered.
    pub fn lost(&self) -> Vec<&Sent> {
        self.sent.iter().filter(|sent| sent.outcome.by().is_none()).collect()
    }

    /// What was answered.
    pub fn answered(&self) -> Vec<&Sent> {
        self.sent.iter().filter(|sent| sent.outcome.by().is_some()).collect()
    }

    /// The part that was sent from one time until another.
    pub fn between(&self, from: Instant, until: Instant) -> Self {
        let sent = self.sent.iter().filter(|sent| (from..until).contains(&sent.at));
        Self { what: self.what.clone(), sent: sent.cloned().collect() }
    }

    /// The counts.
    pub fn tally(&self) -> Tally {
        self.sent.iter().map(|sent| sent.outcome.clone()).collect()
    }
}

impl fmt::Display for Log {
    /// How many, and when the ones were lost and the others not: `120 answered, then 3 lost from 0.612 s, …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.what)?;
        let Some(first) = self.sent.first() else { return f.write_str(" nothing was sent") };
        let runs = self.sent.chunk_by(|a, b| a.outcome.by().is_some() == b.outcome.by().is_some());
        for run in runs {
            let word = if run[0].outcome.by().is_some() { "answered" } else { "lost" };
            let since = run[0].at.duration_since(first.at).as_secs_f64();
            write!(f, " {} {word} from {since:.3} s;", run.len())?;
        }
        Ok(())
    }
}

/// Ports for UDP, below those that matrices and kernels give.
const PORTS: std::ops::Range<u16> = 1_100..11_900;

fn connect_on(
    protocol: Protocol,
    source: IpAddr,
    to: SocketAddr,
    options: TrafficOptions,
    stop: &AtomicBool,
) -> Vec<Sent> {
    let (mut volley, mut sent) = (Volley::default(), Vec::new());
    let mut ports = PORTS.cycle();
    let mut next = Instant::now();
    let mut count = 0;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        if stopped && volley.under_way() == 0 {
            break;
        }
        if !stopped && Instant::now() >= next && volley.under_way() < options.under_way.max(1) {
            let port = if protocol == Protocol::Udp { ports.next().unwrap_or_default() } else { 0 };
            let from = Some(SocketAddr::new(source, port));
            next = (next + options.pace).max(Instant::now());
            volley.fire(count, &Shot { protocol, from, to, patience: options.patience, insist: false });
            count += 1;
        }
        let until = if stopped || volley.under_way() >= options.under_way.max(1) {
            Instant::now() + Duration::from_millis(50)
        } else {
            next
        };
        let landed = volley.wait(until);
        sent.extend(landed.into_iter().map(|l| Sent { at: l.fired, took: l.took, outcome: l.outcome }));
        if volley.under_way() == 0 {
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
    sent.extend(volley.wait(Instant::now()).into_iter().map(|l| Sent {
        at: l.fired,
        took: l.took,
        outcome: l.outcome,
    }));
    sent
}

fn send_on(socket: &UdpSocket, options: TrafficOptions, stop: &AtomicBool) -> Vec<Sent> {
    let mut sent: Vec<Sent> = Vec::new();
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next && !stop.load(Ordering::Relaxed) {
            let said = socket.send(format!("datagram#{}", sent.len()).as_bytes());
            let outcome = match said.map_err(|error| why_forbidden(socket, error)) {
                Ok(_) => Outcome::TimedOut,
                Err(error) => Outcome::of_error(&error),
            };
            sent.push(Sent { at: now, took: options.patience, outcome });
            next = (next + options.pace).max(now);
        }
        let over = |sent: &Sent| sent.outcome != Outcome::TimedOut || now > sent.at + options.patience;
        if stop.load(Ordering::Relaxed)
            && sent.iter().rev().take_while(|s| s.at + options.patience > now).all(over)
        {
            return sent;
        }
        let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // A read that waits longer than it was told to costs no more than a later packet.
        let _ = socket.set_read_timeout(Some(wait));
        let mut datagram = [0; 512];
        // Errors are those of earlier datagrams, which stay lost.
        let Ok(length) = socket.recv(&mut datagram) else { continue };
        let line = String::from_utf8_lossy(&datagram[..length]).trim_end().to_owned();
        let number = line.rsplit('#').next().and_then(|number| number.parse::<usize>().ok());
        let Some(answered) = number.and_then(|number| sent.get_mut(number)) else { continue };
        answered.took = answered.at.elapsed();
        if answered.took <= options.patience {
            answered.outcome = Outcome::of_reply(&line);
        }
    }
}
