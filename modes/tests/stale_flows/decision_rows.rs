//! The table of changes and of the flows that are stale after them.

/// A Service, without its endpoints.
pub(crate) const GAME: &str = "game udp 10.96.5.4:7777 node=30505 ext=192.0.2.7 lb=203.0.113.7";

/// A change, and the flows before it: `-` marks those that are deleted, `+` those that stay.
pub(crate) struct Row {
    pub(crate) case: &'static str,
    /// Appended to [`GAME`] if it begins with `->`; otherwise the whole state.
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    /// The proxy restarts in state `after`.
    pub(crate) restart: bool,
    pub(crate) flows: &'static str,
}

const fn row(case: &'static str, before: &'static str, after: &'static str, flows: &'static str) -> Row {
    Row { case, before, after, restart: false, flows }
}

const fn restart(case: &'static str, state: &'static str, flows: &'static str) -> Row {
    Row { case, before: "", after: state, restart: true, flows }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "an endpoint is removed: its flows at all frontends of the Service are deleted, and no others",
        "-> 10.244.1.10:7777 10.244.2.10:7777",
        "-> 10.244.1.10:7777",
        "- udp 10.96.5.4:7777      <- 10.244.2.10:7777
         - udp 192.0.2.7:7777      <- 10.244.2.10:7777
         - udp 203.0.113.7:7777    <- 10.244.2.10:7777
         - udp 192.168.10.11:30505 <- 10.244.2.10:7777
         - udp 172.20.5.11:30505   <- 10.244.2.10:7777
         + udp 10.96.5.4:7777      <- 10.244.1.10:7777
         + udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 10.244.2.10:7777    <- itself
         + udp 10.96.5.4:7778      <- 10.244.2.10:7777
         + udp 8.8.8.8:53          <- itself
         + udp 8.8.8.8:30505       <- itself
         + udp 8.8.8.8:30505       <- 10.244.2.10:7777
         + udp 192.168.10.12:30505 <- 10.244.2.10:7777
         + tcp 10.96.5.4:7777      <- 10.244.2.10:7777
         + tcp 192.168.10.11:30505 <- 10.244.2.10:7777",
    ),
    row(
        "an endpoint is added: nothing can be stale",
        "-> 10.244.1.10:7777",
        "-> 10.244.1.10:7777 10.244.2.10:7777",
        "+ udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777 <- 10.244.2.10:7777",
    ),
    row(
        "scale to zero: translated flows are deleted, so that their clients are rejected; the others are kept",
        "-> 10.244.1.10:7777 10.244.2.10:7777",
        "->",
        "- udp 10.96.5.4:7777      <- 10.244.1.10:7777
         - udp 10.96.5.4:7777      <- 10.244.2.10:7777
         - udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777      <- itself
         + udp 192.168.10.11:30505 <- itself
         + udp 10.244.1.10:7777    <- itself",
    ),
    row(
        "scale from zero: flows from before the first endpoint are deleted",
        "->",
        "-> 10.244.2.12:7777",
        "- udp 10.96.5.4:7777      <- itself
         - udp 192.168.10.11:30505 <- itself
         - udp 10.96.5.4:7777      <- 10.244.1.10:7777
         + udp 10.96.5.4:7777      <- 10.244.2.12:7777
         + udp 8.8.8.8:30505       <- itself",
    ),
    row(
        "all endpoints are replaced",
        "-> 10.244.1.10:7777",
        "-> 10.244.1.11:7777",
        "- udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777 <- 10.244.1.11:7777",
    ),
    row(
        "an endpoint that answers while it terminates keeps its flows",
        "-> 10.244.1.10:7777 10.244.2.10:7777",
        "-> 10.244.1.10:7777 10.244.2.10:7777/terminating",
        "+ udp 10.96.5.4:7777 <- 10.244.2.10:7777",
    ),
    row(
        "an endpoint that does not answer any more loses them",
        "-> 10.244.1.10:7777 10.244.2.10:7777",
        "-> 10.244.1.10:7777 10.244.2.10:7777/unready",
        "+ udp 10.96.5.4:7777 <- 10.244.1.10:7777
         - udp 10.96.5.4:7777 <- 10.244.2.10:7777",
    ),
    row(
        "the target port changes",
        "-> 10.244.1.10:7777",
        "-> 10.244.1.10:8888",
        "- udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777 <- 10.244.1.10:8888",
    ),
    row(
        "the Service is deleted: translated flows are deleted, untranslated flows are kept",
        "-> 10.244.1.10:7777",
        "",
        "- udp 10.96.5.4:7777      <- 10.244.1.10:7777
         - udp 203.0.113.7:7777    <- 10.244.1.10:7777
         - udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777      <- itself
         + udp 192.168.10.11:30505 <- itself
         + udp 8.8.8.8:30505       <- 10.244.1.10:7777
         + tcp 10.96.5.4:7777      <- 10.244.1.10:7777",
    ),
    row(
        "the Service appears after its clients",
        "",
        "-> 10.244.1.10:7777",
        "- udp 10.96.5.4:7777      <- itself
         - udp 192.168.10.11:30505 <- itself
         - udp 10.96.5.4:7777      <- 10.244.2.10:7777
         + udp 10.96.5.4:7777      <- 10.244.1.10:7777",
    ),
    row(
        "the Service appears without endpoints",
        "",
        "->",
        "+ udp 10.96.5.4:7777 <- itself
         - udp 10.96.5.4:7777 <- 10.244.2.10:7777",
    ),
    row(
        "the node port is given up",
        "game udp 10.96.5.4:7777 node=30505 -> 10.244.1.10:7777",
        "game udp 10.96.5.4:7777 -> 10.244.1.10:7777",
        "- udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 192.168.10.11:30505 <- itself
         + udp 10.96.5.4:7777      <- 10.244.1.10:7777",
    ),
    row(
        "the load balancer's address changes",
        "game udp 10.96.5.4:7777 lb=203.0.113.7 -> 10.244.1.10:7777",
        "game udp 10.96.5.4:7777 lb=203.0.113.8 -> 10.244.1.10:7777",
        "- udp 203.0.113.7:7777 <- 10.244.1.10:7777
         - udp 203.0.113.8:7777 <- itself
         + udp 203.0.113.8:7777 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777   <- 10.244.1.10:7777",
    ),
    row(
        "an external IP is given up",
        "game udp 10.96.5.4:7777 ext=192.0.2.7 ext=192.0.2.8 -> 10.244.1.10:7777",
        "game udp 10.96.5.4:7777 ext=192.0.2.7 -> 10.244.1.10:7777",
        "+ udp 192.0.2.7:7777 <- 10.244.1.10:7777
         - udp 192.0.2.8:7777 <- 10.244.1.10:7777",
    ),
    row(
        "the port changes",
        "game udp 10.96.5.4:7777 -> 10.244.1.10:7777",
        "game udp 10.96.5.4:7000 -> 10.244.1.10:7777",
        "- udp 10.96.5.4:7777 <- 10.244.1.10:7777
         - udp 10.96.5.4:7000 <- itself
         + udp 10.96.5.4:7000 <- 10.244.1.10:7777",
    ),
    row(
        "the protocol changes to TCP",
        "game udp 10.96.5.4:7777 -> 10.244.1.10:7777",
        "game tcp 10.96.5.4:7777 -> 10.244.1.10:7777",
        "- udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + tcp 10.96.5.4:7777 <- 10.244.1.10:7777
         + tcp 10.96.5.4:7777 <- itself",
    ),
    row(
        "another Service takes the ClusterIP over",
        "old udp 10.96.5.4:7777 -> 10.244.1.10:7777",
        "new udp 10.96.5.4:7777 -> 10.244.1.11:7777",
        "- udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + udp 10.96.5.4:7777 <- 10.244.1.11:7777",
    ),
    row(
        "an external IP shared with a Service that stays: its flows stay",
        "a udp 10.96.5.4:7777 ext=192.0.2.7 -> 10.244.1.10:7777
         b udp 10.96.5.5:7777 ext=192.0.2.7 -> 10.244.1.11:7777",
        "b udp 10.96.5.5:7777 ext=192.0.2.7 -> 10.244.1.11:7777",
        "- udp 192.0.2.7:7777 <- 10.244.1.10:7777
         + udp 192.0.2.7:7777 <- 10.244.1.11:7777
         - udp 10.96.5.4:7777 <- 10.244.1.10:7777
         + udp 10.96.5.5:7777 <- 10.244.1.11:7777",
    ),
    row(
        "a node port's number as external port of another Service on this node's address: both may answer",
        "a udp 10.96.5.4:7777 node=30505 -> 10.244.1.10:7777 10.244.1.12:7777
         b udp 10.96.5.5:30505 ext=192.168.10.11 -> 10.244.1.11:7777",
        "a udp 10.96.5.4:7777 node=30505 -> 10.244.1.12:7777
         b udp 10.96.5.5:30505 ext=192.168.10.11 -> 10.244.1.11:7777",
        "- udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 192.168.10.11:30505 <- 10.244.1.11:7777
         + udp 192.168.10.11:30505 <- 10.244.1.12:7777",
    ),
    row(
        "the same, where the external IP goes",
        "a udp 10.96.5.4:7777 node=30505 -> 10.244.1.10:7777
         b udp 10.96.5.5:30505 ext=192.168.10.11 -> 10.244.1.11:7777",
        "a udp 10.96.5.4:7777 node=30505 -> 10.244.1.10:7777
         b udp 10.96.5.5:30505 -> 10.244.1.11:7777",
        "+ udp 192.168.10.11:30505 <- 10.244.1.10:7777
         - udp 192.168.10.11:30505 <- 10.244.1.11:7777",
    ),
    row(
        "an endpoint on the host network that answers on the external IP itself",
        "game udp 10.96.5.4:7777 ext=192.168.10.11 -> 192.168.10.11:7777 10.244.1.10:7777",
        "game udp 10.96.5.4:7777 ext=192.168.10.11 -> 192.168.10.11:7777",
        "+ udp 192.168.10.11:7777 <- itself
         - udp 192.168.10.11:7777 <- 10.244.1.10:7777",
    ),
    row(
        "a Service beside the changed one is not looked at",
        "a udp 10.96.5.4:7777 -> 10.244.1.10:7777
         b udp 10.96.5.5:7777 node=30506 -> 10.244.1.11:7777",
        "a udp 10.96.5.4:7777 -> 10.244.1.12:7777
         b udp 10.96.5.5:7777 node=30506 -> 10.244.1.11:7777",
        "- udp 10.96.5.4:7777      <- 10.244.1.10:7777
         + udp 10.96.5.5:7777      <- 10.244.1.10:7777
         + udp 192.168.10.11:30506 <- itself",
    ),
    row(
        "a TCP Service is added: earlier SYNs are deleted, so that the next one reaches an endpoint",
        "",
        "web tcp 10.96.5.4:80 node=30505 ext=192.0.2.7 lb=203.0.113.7 -> 10.244.1.10:8080",
        "- syn 10.96.5.4:80        <- itself
         - syn 192.0.2.7:80        <- itself
         - syn 203.0.113.7:80      <- itself
         - syn 192.168.10.11:30505 <- itself
         - syn 172.20.5.11:30505   <- itself
         - syn 10.96.5.4:80        <- 10.244.9.9:8080
         + syn 10.96.5.4:80        <- 10.244.1.10:8080
         + syn 10.96.5.4:81        <- itself
         + syn 8.8.8.8:30505       <- itself
         + syn 10.244.1.10:8080    <- itself
         + tcp 192.0.2.7:80        <- itself
         + tcp 192.168.10.11:30505 <- itself",
    ),
    row(
        "a TCP Service gets its first endpoint",
        "web tcp 10.96.5.4:80 node=30505 ->",
        "web tcp 10.96.5.4:80 node=30505 -> 10.244.1.10:8080",
        "- syn 10.96.5.4:80        <- itself
         - syn 192.168.10.11:30505 <- itself
         + tcp 10.96.5.4:80        <- itself
         + syn 10.96.5.4:80        <- 10.244.1.10:8080",
    ),
    row(
        "a TCP Service gets another address",
        "web tcp 10.96.5.4:80 -> 10.244.1.10:8080",
        "web tcp 10.96.5.4:80 lb=203.0.113.7 -> 10.244.1.10:8080",
        "- syn 203.0.113.7:80 <- itself
         + syn 10.96.5.4:80   <- itself
         + tcp 203.0.113.7:80 <- itself",
    ),
    row(
        "a TCP Service without endpoints: no endpoint to reply",
        "",
        "web tcp 10.96.5.4:80 ->",
        "+ syn 10.96.5.4:80 <- itself
         + tcp 10.96.5.4:80 <- 10.244.1.10:8080",
    ),
    row(
        "a TCP Service loses an endpoint, or goes: resets end its connections",
        "web tcp 10.96.5.4:80 -> 10.244.1.10:8080 10.244.1.11:8080
         old tcp 10.96.5.5:80 -> 10.244.1.12:8080",
        "web tcp 10.96.5.4:80 -> 10.244.1.11:8080",
        "+ tcp 10.96.5.4:80 <- 10.244.1.10:8080
         + tcp 10.96.5.5:80 <- 10.244.1.12:8080",
    ),
    restart(
        "a TCP Service that appeared while no proxy ran",
        "web tcp 10.96.5.4:80 node=30505 -> 10.244.1.10:8080",
        "- syn 10.96.5.4:80        <- itself
         - syn 192.168.10.11:30505 <- itself
         + tcp 10.96.5.4:80        <- 10.244.2.10:8080
         + syn 8.8.8.8:80          <- itself",
    ),
    restart(
        "a restart without change deletes nothing",
        "-> 10.244.1.10:7777 10.244.2.10:7777/terminating",
        "+ udp 10.96.5.4:7777      <- 10.244.1.10:7777
         + udp 10.96.5.4:7777      <- 10.244.2.10:7777
         + udp 192.0.2.7:7777      <- 10.244.1.10:7777
         + udp 203.0.113.7:7777    <- 10.244.1.10:7777
         + udp 192.168.10.11:30505 <- 10.244.1.10:7777
         + udp 8.8.8.8:30505       <- itself
         + udp 10.96.9.9:7777      <- 10.244.1.10:7777
         + udp 10.244.1.10:7777    <- itself",
    ),
    restart(
        "an endpoint vanished while no proxy ran",
        "-> 10.244.1.10:7777",
        "- udp 10.96.5.4:7777      <- 10.244.2.10:7777
         - udp 192.168.10.11:30505 <- 10.244.2.10:7777
         - udp 10.96.5.4:7777      <- itself
         + udp 10.96.5.4:7777      <- 10.244.1.10:7777",
    ),
    restart(
        "the last endpoint vanished while no proxy ran",
        "->",
        "- udp 10.96.5.4:7777 <- 10.244.2.10:7777
         + udp 10.96.5.4:7777 <- itself",
    ),
];
