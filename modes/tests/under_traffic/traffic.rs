//! Datagrams and TCP connections to Services while these change.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::services::{Client, EndpointSet, Frontend, LOCAL, State, address, endpoint_at};
use crate::testbed::{Testbed, raw_socket, receive};

/// Packets of each flow that may be on their way: so few that the packets of all flows fit into the queue of a processor
/// (`net.core.netdev_max_backlog`, 1,000).
const MAX_IN_FLIGHT: u64 = 16;

/// Source ports of a flow: more than packets in flight, so that no two of them are one flow for connection tracking.
const SOURCE_PORTS: u64 = 256;

/// The time within which all packets must have arrived.
const ARRIVAL: Duration = Duration::from_secs(20);

/// Threads that send datagrams in each of two namespaces.
const TCP_CLIENTS: usize = 2;

/// Bytes of a datagram: flow, step and number.
const PAYLOAD: usize = 16;

/// Clients that send to a frontend whose Service always has endpoints for them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) service: usize,
    pub(crate) frontend: Frontend,
    pub(crate) client: Client,
}

impl Path {
    fn destination(&self) -> SocketAddrV4 {
        let (ip, port) = address(self.service, self.frontend);
        SocketAddrV4::new(ip, port)
    }

    /// Returns the endpoints of the Service, and whether only those on this node are valid.
    fn endpoints(&self, state: &State) -> (EndpointSet, bool) {
        let service = state[self.service].as_ref().expect("the Service has endpoints in each state");
        service.endpoints_of(self.frontend, self.client)
    }
}

/// The description of a step, and for each path the endpoints after it and whether only those on this node are valid.
type StepEndpoints = (String, Vec<(EndpointSet, bool)>);

/// The valid endpoints from step to step.
#[derive(Default)]
struct Endpoints {
    steps: RwLock<Vec<StepEndpoints>>,
    current: AtomicUsize,
}

impl Endpoints {
    fn current(&self) -> usize {
        self.current.load(Ordering::Acquire)
    }

    fn push(&self, step: String, endpoints: Vec<(EndpointSet, bool)>) {
        let mut steps = self.steps.write().unwrap();
        steps.push((step, endpoints));
        self.current.store(steps.len() - 1, Ordering::Release);
    }

    /// Returns true if a client that sent in the step `from` may have reached an endpoint by now. While a step is written, the
    /// endpoints and the traffic policy of the state before it are valid too.
    fn is_valid(&self, path: usize, from: usize, endpoint: Option<u8>) -> bool {
        let current = self.current();
        let steps = self.steps.read().unwrap();
        let states = || steps[from.saturating_sub(1)..=current].iter().map(|(_, paths)| paths[path]);
        let all = states().fold(0, |all, (endpoints, _)| all | endpoints);
        let valid = if states().all(|(_, is_local)| is_local) { all & LOCAL } else { all };
        endpoint.is_some_and(|endpoint| valid & (1 << endpoint) != 0)
    }

    /// Returns the steps from a number to the current one, with the endpoints of a path.
    fn describe(&self, path: usize, from: usize) -> String {
        let (current, steps) = (self.current(), self.steps.read().unwrap());
        let describe = |number: usize| {
            let (description, endpoints) = &steps[number];
            let (endpoints, is_local) = endpoints[path];
            let endpoints: Vec<u8> = (0..128).filter(|endpoint| endpoints & (1 << endpoint) != 0).collect();
            format!("step {number} to {endpoints:?} (local: {is_local}): {description}")
        };
        (from.saturating_sub(1)..=current).map(describe).collect::<Vec<_>>().join("; ")
    }
}

/// Datagrams of a path.
struct Flow {
    path: Path,
    source: Ipv4Addr,
    sent: AtomicU64,
    received: AtomicU64,
    /// The number of the first datagram of each step.
    starts: Mutex<Vec<(usize, u64)>>,
    /// A bit for each datagram that arrived.
    arrived: Mutex<Vec<u64>>,
}

/// The number of packets and connections of a test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) datagrams: u64,
    pub(crate) connections: u64,
}

/// What the threads of a test share.
struct Shared {
    flows: Vec<Flow>,
    endpoints: Endpoints,
    connections: AtomicU64,
    faults: Mutex<Vec<String>>,
    stop: AtomicBool,
    drained: AtomicBool,
}

impl Shared {
    fn add_fault(&self, fault: String) {
        let mut faults = self.faults.lock().unwrap();
        if faults.len() < 100 {
            faults.push(fault);
        }
    }

    fn in_flight(&self) -> u64 {
        let of = |flow: &Flow| {
            // Reads the received packets first, so that the difference is not negative.
            let received = flow.received.load(Ordering::Acquire);
            flow.sent.load(Ordering::Acquire) - received
        };
        self.flows.iter().map(of).sum()
    }
}

/// Sends datagrams and connects to all paths while `change` runs, which names each step with the state after it, before it is
/// written.
///
/// # Panics
/// If a datagram or connection was lost, rejected, or reached a wrong endpoint.
pub(crate) fn while_clients_send(
    testbed: &Testbed,
    paths: &[Path],
    initial: &State,
    change: impl FnOnce(&mut dyn FnMut(String, &State)),
) -> Counts {
    let flow = |(number, path): (usize, &Path)| Flow {
        path: *path,
        source: source(path.client, number as u8 + 10),
        sent: AtomicU64::new(0),
        received: AtomicU64::new(0),
        starts: Mutex::default(),
        arrived: Mutex::default(),
    };
    let shared = Arc::new(Shared {
        flows: paths.iter().enumerate().map(flow).collect(),
        endpoints: Endpoints::default(),
        connections: AtomicU64::new(0),
        faults: Mutex::default(),
        stop: AtomicBool::new(false),
        drained: AtomicBool::new(false),
    });
    let of_state = |state: &State| paths.iter().map(|path| path.endpoints(state)).collect();
    shared.endpoints.push("the initial state".to_owned(), of_state(initial));
    thread::scope(|scope| {
        scope.spawn(|| receive_all(&testbed.receiver, &shared));
        let from_node = scope.spawn(|| send(&shared, |client| client == Client::Node));
        let senders = testbed.among_clients({
            let shared = Arc::clone(&shared);
            move || send(&shared, |client| client != Client::Node)
        });
        let connectors = (0..TCP_CLIENTS).map(|n| {
            let shared = Arc::clone(&shared);
            testbed.among_clients(move || connect_all(&shared, n))
        });
        let connectors: Vec<_> = connectors.collect();
        change(&mut |step, state| shared.endpoints.push(step, of_state(state)));
        shared.stop.store(true, Ordering::Relaxed);
        from_node.join().unwrap();
        senders.recv().expect("the sender ends");
        connectors.into_iter().for_each(|connector| connector.recv().expect("the client ends"));
        let deadline = Instant::now() + ARRIVAL;
        while shared.in_flight() > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        shared.drained.store(true, Ordering::Relaxed);
    });
    let mut counts = Counts { connections: shared.connections.load(Ordering::Relaxed), ..Counts::default() };
    for flow in &shared.flows {
        counts.datagrams += flow.sent.load(Ordering::Relaxed);
        report_lost(flow, &shared);
    }
    let faults = shared.faults.lock().unwrap();
    assert!(faults.is_empty(), "{counts:?}\n{}", faults.join("\n"));
    counts
}

/// Adds the datagrams of a flow that did not arrive to the faults.
fn report_lost(flow: &Flow, shared: &Shared) {
    let (sent, received) = (flow.sent.load(Ordering::Relaxed), flow.received.load(Ordering::Relaxed));
    if sent == received {
        return;
    }
    let (arrived, starts) = (flow.arrived.lock().unwrap(), flow.starts.lock().unwrap());
    let has_arrived = |number: u64| {
        arrived.get((number / 64) as usize).is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    };
    for number in (0..sent).filter(|number| !has_arrived(*number)) {
        let last = starts.partition_point(|(_, start)| *start <= number);
        let step = starts[last.saturating_sub(1)].0;
        let steps = shared.endpoints.steps.read().unwrap();
        let (description, _) = &steps[step];
        let path = flow.path;
        shared.add_fault(format!(
            "{path:?}: datagram {number} of {sent} was lost in step {step}: {description}"
        ));
    }
}

/// Returns the address of a client.
fn source(client: Client, number: u8) -> Ipv4Addr {
    match client {
        Client::Pod => Ipv4Addr::new(10, 245, 0, number),
        Client::Outside => Ipv4Addr::new(198, 51, 100, number),
        Client::Node => Ipv4Addr::new(192, 0, 2, 1),
    }
}

/// Sends datagrams of the flows of some clients in turn, as long as not too many of all flows are on their way.
fn send(shared: &Shared, is_own: impl Fn(Client) -> bool) {
    let socket = raw_socket();
    let limit = MAX_IN_FLIGHT * shared.flows.len() as u64;
    let own: Vec<(usize, &Flow)> =
        shared.flows.iter().enumerate().filter(|(_, flow)| is_own(flow.path.client)).collect();
    let mut last = vec![usize::MAX; shared.flows.len()];
    while !shared.stop.load(Ordering::Relaxed) {
        for (index, flow) in &own {
            let step = shared.endpoints.current();
            let number = flow.sent.fetch_add(1, Ordering::AcqRel);
            if std::mem::replace(&mut last[*index], step) != step {
                flow.starts.lock().unwrap().push((step, number));
            }
            let destination = flow.path.destination();
            let packet = datagram(flow.source, destination, *index as u32, step as u32, number);
            if let Err(error) = socket.send_to(&packet, &SocketAddr::V4(destination).into()) {
                // The rules dropped a packet of this node.
                shared.add_fault(format!("{:?}: datagram {number} was not sent: {error}", flow.path));
            }
        }
        while shared.in_flight() > limit && !shared.stop.load(Ordering::Relaxed) {
            thread::yield_now();
        }
    }
}

/// Returns a UDP datagram with its IP header.
fn datagram(source: Ipv4Addr, destination: SocketAddrV4, flow: u32, step: u32, number: u64) -> Vec<u8> {
    let source_port = 1024 + (number % SOURCE_PORTS) as u16;
    let length = (8 + PAYLOAD) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, libc::IPPROTO_UDP as u8, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.ip().octets());
    packet.extend([source_port, destination.port(), length, 0].into_iter().flat_map(u16::to_be_bytes));
    packet.extend([flow, step].into_iter().flat_map(u32::to_be_bytes));
    packet.extend(number.to_be_bytes());
    packet
}

fn receive_all(socket: &Socket, shared: &Shared) {
    let mut buffer = [0; PAYLOAD];
    loop {
        let Some((length, endpoint)) = receive(socket, &mut buffer) else {
            if shared.drained.load(Ordering::Relaxed) {
                return;
            }
            continue;
        };
        assert_eq!(length, PAYLOAD, "a datagram to {endpoint}");
        let word = |at: usize| u32::from_be_bytes(buffer[at..at + 4].try_into().unwrap());
        let (index, step) = (word(0) as usize, word(4) as usize);
        let number = u64::from(word(8)) << 32 | u64::from(word(12));
        let flow = &shared.flows[index];
        if !shared.endpoints.is_valid(index, step, endpoint_at(endpoint)) {
            let (path, steps) = (flow.path, shared.endpoints.describe(index, step));
            shared.add_fault(format!("{path:?}: datagram {number} reached {endpoint}, in {steps}"));
        }
        let mut arrived = flow.arrived.lock().unwrap();
        let at = (number / 64) as usize;
        if arrived.len() <= at {
            arrived.resize(at + 1, 0);
        }
        if arrived[at] & (1 << (number % 64)) != 0 {
            shared.add_fault(format!("{:?}: datagram {number} arrived twice", flow.path));
        }
        arrived[at] |= 1 << (number % 64);
        flow.received.fetch_add(1, Ordering::AcqRel);
    }
}

/// Connects to all frontends in turn. `start` is the first.
fn connect_all(shared: &Shared, start: usize) {
    let paths = shared.flows.iter().map(|flow| flow.path).enumerate().cycle().skip(start);
    let paths = paths.filter(|(_, path)| path.client != Client::Node).step_by(TCP_CLIENTS);
    for (index, path) in paths {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let step = shared.endpoints.current();
        match connect(&path) {
            Ok(endpoint) if shared.endpoints.is_valid(index, step, endpoint_at(endpoint)) => {}
            outcome => {
                let steps = shared.endpoints.describe(index, step);
                shared.add_fault(format!("{path:?}: a connection got {outcome:?} in {steps}"));
            }
        }
        shared.connections.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the endpoint that a connection reaches.
fn connect(path: &Path) -> std::io::Result<Ipv4Addr> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let address = match path.client {
        // The only one of this namespace that is not in a route to it.
        Client::Outside => Ipv4Addr::new(198, 51, 100, 2),
        client => source(client, 5),
    };
    socket.bind(&SocketAddr::from((address, 0)).into())?;
    socket.connect_timeout(&SocketAddr::V4(path.destination()).into(), ARRIVAL)?;
    socket.set_read_timeout(Some(ARRIVAL))?;
    let mut endpoint = [0; 4];
    (&socket).read_exact(&mut endpoint)?;
    // Ends the connection without waiting states.
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(Ipv4Addr::from(endpoint))
}
