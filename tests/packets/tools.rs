//! The machine's tools, in the flavours that it has.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use portcullis_lab::NetNs;

/// Which iptables a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Nft,
    Legacy,
}

impl Flavour {
    /// A search path on which `iptables` is of this flavour; `folder` is for links.
    pub(crate) fn path(self, folder: &Path) -> String {
        let program = match self {
            Self::Nft => "/usr/sbin/xtables-nft-multi",
            Self::Legacy => "/usr/sbin/xtables-legacy-multi",
        };
        assert!(Path::new(program).exists(), "{program} is not there; install Debian's package iptables");
        for base in ["iptables", "ip6tables"] {
            for action in ["", "-save", "-restore"] {
                symlink(program, folder.join(format!("{base}{action}"))).unwrap();
            }
        }
        format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
    }

    /// The name of a tool that is of this flavour whatever the search path says.
    pub(crate) fn tool(self, base: &str, action: &str) -> String {
        match self {
            Self::Nft => format!("{base}-nft{action}"),
            Self::Legacy => format!("{base}-legacy{action}"),
        }
    }
}

/// What a command prints that reads this text; it must succeed.
pub(crate) fn output_of(command: &mut Command, text: &str) -> String {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a command prints; it must succeed.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The answer to an HTTP request, headers and all, asked from inside a namespace.
pub(crate) fn http_get(netns: &NetNs, address: &str, path: &str) -> io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    let get = || {
        let wait = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&address, wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    netns.run(get).unwrap()
}

/// The sum of a metric over the series whose labels contain all of these; 0 without any.
pub(crate) fn sum_of(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of_name = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with([' ', '{']))
            && labels.iter().all(|label| line.contains(label))
    });
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
