//! Receiver of an NFLOG group.

use std::thread;
use std::time::{Duration, Instant};

use portcullis_lab::NetNs;
use portcullis_netlink::message::Batch;
use portcullis_netlink::netfilter::HEADER;
use portcullis_netlink::socket::{NetlinkProtocol, Socket};

/// `NFNL_SUBSYS_ULOG` and its messages.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = PACKET | 1;

/// Attributes of the configuration: `NFULA_CFG_CMD` with `NFULNL_CFG_CMD_BIND`, `NFULA_CFG_MODE` with
/// `NFULNL_COPY_PACKET`, `NFULA_CFG_QTHRESH`.
const COMMAND: (u16, [u8; 1]) = (1, [1]);
const MODE: (u16, [u8; 6]) = (2, [0, 0, 0xff, 0xff, 2, 0]);
const QUEUE_THRESHOLD: (u16, [u8; 4]) = (5, [0, 0, 0, 1]);

/// Attributes of a packet: `NFULA_PAYLOAD`, `NFULA_PREFIX`.
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

const ACTION: &str = "listen to a log group";

/// A logged packet.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// The log prefix of the rule.
    pub(crate) prefix: String,
    /// The copied part of the packet, from its IP header.
    pub(crate) packet: Vec<u8>,
}

/// Receiver of an NFLOG group in a network namespace.
pub(crate) struct Listener {
    socket: Socket,
}

impl Listener {
    /// Binds to a group.
    pub(crate) fn bind(netns: &NetNs, group: u16) -> Self {
        let bound = netns.run(|| {
            let mut socket = Socket::open(NetlinkProtocol::Netfilter).unwrap();
            let mut batch = Batch::new();
            let parameters: [(u16, &[u8]); 3] =
                [(COMMAND.0, &COMMAND.1), (MODE.0, &MODE.1), (QUEUE_THRESHOLD.0, &QUEUE_THRESHOLD.1)];
            for (kind, value) in parameters {
                let fill = |writer: &mut portcullis_netlink::attribute::Writer<'_>| {
                    writer.netfilter_resource(0, group).bytes(kind, value);
                };
                batch.push(ACTION, CONFIG, 0, fill).unwrap();
            }
            socket.acknowledge(ACTION, &mut batch).unwrap();
            socket.set_nonblocking().unwrap();
            socket
        });
        Self { socket: bound.unwrap() }
    }

    /// Returns the packets that are logged until none was logged for `quiet`.
    pub(crate) fn drain(&mut self, quiet: Duration) -> Vec<Logged> {
        let (mut all, mut last) = (Vec::new(), Instant::now());
        while last.elapsed() < quiet {
            let before = all.len();
            let read = self.socket.events(ACTION, |message| {
                if message.kind == PACKET {
                    let (_, attributes) = message.split::<HEADER>().unwrap();
                    let mut logged = Logged { prefix: String::new(), packet: Vec::new() };
                    for attribute in attributes.map(|attribute| attribute.unwrap()) {
                        match attribute.kind {
                            PREFIX => logged.prefix = attribute.text(),
                            PAYLOAD => logged.packet = attribute.payload.to_vec(),
                            _ => {}
                        }
                    }
                    all.push(logged);
                }
                Ok(())
            });
            read.unwrap();
            if all.len() > before {
                last = Instant::now();
            }
            thread::sleep(Duration::from_millis(5));
        }
        all
    }
}
