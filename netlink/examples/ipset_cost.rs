//! Measures filling an ipset over netlink and with the `ipset` tool: `cargo run --release --example ipset_cost` as root.
//! It creates a network namespace and prints a table.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Instant;

use portcullis_netlink::Family;
use portcullis_netlink::ipset::{IpSets, SetEntry, SetType};

const ENTRIES: u32 = 60_000;
const MAXELEM: u32 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // SAFETY: no pointers; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        eprintln!("cannot make a network namespace: {}; run as root", std::io::Error::last_os_error());
        std::process::exit(1);
    }
    let mut sets = IpSets::open_or_load()?;
    let entries = || (0..ENTRIES).map(entry);

    let lines = entries().fold(String::new(), |mut lines, entry| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "add tool {entry}");
        lines
    });
    sets.create("tool", SetType::HashIpPortIp, Family::V4, MAXELEM)?;
    timed("ipset restore, 60,000 entries", || restore(&lines))?;
    timed("ipset restore -exist, the same again", || restore(&lines))?;

    sets.create("ours", SetType::HashIpPortIp, Family::V4, MAXELEM)?;
    timed("change, 60,000 entries added", || Ok(sets.change("ours", entries(), [])?))?;
    timed("change, the same again", || Ok(sets.change("ours", entries(), [])?))?;
    timed("change, one more", || Ok(sets.change("ours", [entry(ENTRIES)], [])?))?;
    timed("entries, 60,001 listed", || {
        let mut seen = 0;
        sets.entries("ours", |_| {
            seen += 1;
            Ok(())
        })?;
        assert_eq!(seen, ENTRIES + 1);
        Ok(())
    })?;
    timed("change, 60,000 entries deleted", || Ok(sets.change("ours", [], entries())?))?;
    Ok(())
}

fn restore(lines: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut tool = Command::new("ipset").args(["restore", "-exist"]).stdin(Stdio::piped()).spawn()?;
    tool.stdin.take().ok_or("no pipe to ipset")?.write_all(lines.as_bytes())?;
    match tool.wait()? {
        status if status.success() => Ok(()),
        status => Err(format!("ipset restore: {status}").into()),
    }
}

fn timed(
    what: &str,
    work: impl FnOnce() -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    work()?;
    println!("{what:40} {:9.2} ms", started.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn entry(number: u32) -> SetEntry {
    let ip = Ipv4Addr::from(0x0a00_0000 + number).into();
    SetEntry::IpPortIp { ip, protocol: libc::IPPROTO_TCP as u8, port: 8080, ip2: ip }
}
