//! Connections and bytes per second from one pod to another.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::node::Netns;
use super::process;

/// Duration of a sample: short, so that those that are compared alternate quickly while other programs use the machine.
const TIME: Duration = Duration::from_millis(200);

/// Two pods.
pub(crate) struct Pair<'a> {
    pub(crate) client: &'a Netns,
    pub(crate) server: &'a Netns,
    /// The address of the server.
    pub(crate) to: SocketAddr,
}

/// Samples of a pair of pods.
#[derive(Clone, Default)]
pub(crate) struct Samples {
    connections: Vec<f64>,
    connection_cost: Vec<f64>,
    bytes: Vec<f64>,
    byte_cost: Vec<f64>,
}

impl Samples {
    /// Takes a sample of each kind.
    pub(crate) fn add(&mut self, pair: &Pair<'_>) {
        let (rate, cost) = measured(|| pair.connections());
        self.connections.push(rate);
        self.connection_cost.push(cost);
        let (rate, cost) = measured(|| pair.bytes());
        self.bytes.push(rate);
        self.byte_cost.push(cost);
    }

    /// Returns the median number of connections per second.
    pub(crate) fn connections(&mut self) -> f64 {
        median(&mut self.connections)
    }

    /// Returns the median processor time of a connection on both sides, in µs.
    pub(crate) fn connection_cost(&mut self) -> f64 {
        median(&mut self.connection_cost) * 1e6
    }

    /// Returns the median processor time of a megabyte on both sides, in µs.
    pub(crate) fn megabyte_cost(&mut self) -> f64 {
        median(&mut self.byte_cost) * 1e12
    }

    /// Returns the median number of Gbit per second.
    pub(crate) fn gbits(&mut self) -> f64 {
        median(&mut self.bytes) * 8.0 / 1e9
    }
}

/// Returns the rate that `load` measures, and the processor time of each unit in seconds.
fn measured(load: impl FnOnce() -> f64) -> (f64, f64) {
    let before = process::of_this_process();
    let rate = load();
    (rate, (process::of_this_process() - before).as_secs_f64() / (rate * TIME.as_secs_f64()))
}

pub(crate) fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

impl Pair<'_> {
    fn connections(&self) -> f64 {
        self.with_server(
            |_| {},
            || {
                let (started, mut count) = (Instant::now(), 0);
                while started.elapsed() < TIME {
                    let mut stream = TcpStream::connect(self.to).expect("the server is reachable");
                    // The server closes first, so that the client's ports do not run out.
                    let _ = stream.read(&mut [0]);
                    count += 1;
                }
                f64::from(count) / started.elapsed().as_secs_f64()
            },
        )
    }

    fn bytes(&self) -> f64 {
        let drain = |mut stream: TcpStream| {
            let mut buffer = vec![0; 256 << 10];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        };
        self.with_server(drain, || {
            let mut stream = TcpStream::connect(self.to).expect("the server is reachable");
            let (started, mut sent, buffer) = (Instant::now(), 0, vec![0; 256 << 10]);
            while started.elapsed() < TIME {
                stream.write_all(&buffer).expect("the server reads");
                sent += buffer.len();
            }
            sent as f64 / started.elapsed().as_secs_f64()
        })
    }

    /// Runs `work` in the client's namespace while a server in the other one hands each connection to `serve`.
    fn with_server<T: Send>(&self, serve: impl Fn(TcpStream) + Sync, work: impl FnOnce() -> T + Send) -> T {
        let listener = self.server.within(|| TcpListener::bind(self.to)).expect("the port is free");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for stream in listener.incoming().flatten() {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    serve(stream);
                }
            });
            let result = self.client.within(work);
            done.store(true, Ordering::Relaxed);
            // Wakes the listener.
            drop(self.client.within(|| TcpStream::connect(self.to)));
            result
        })
    }
}
