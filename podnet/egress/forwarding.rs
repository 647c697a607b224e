//! Kernel settings (sysctl) for forwarding.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use portcullis_netlink::Family;

/// `RTF_DEFAULT | RTF_ADDRCONF`: a default route that the kernel added because of a router advertisement.
const ADVERTISED_DEFAULT: u32 = 0x0001_0000 | 0x0004_0000;

/// A kernel setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSetting {
    /// Its name, as in `net.ipv4.ip_forward`.
    pub name: String,
    /// The value before.
    pub before: String,
    /// The value that was written.
    pub value: &'static str,
}

/// A kernel setting that has another value than forwarding needs, and cannot be written.
#[derive(Debug)]
pub struct UnsetSetting {
    /// Its name.
    pub name: String,
    /// The value that is needed.
    pub value: &'static str,
    /// The error of the system call.
    pub error: io::Error,
}

impl fmt::Display for UnsetSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnsetSetting { name, value, error } = self;
        write!(
            f,
            "cannot set {name}={value} ({error}); set it on the node, or run `portcullis --init-only` as root"
        )
    }
}

/// Makes the kernel forward packets of these families. Returns the changed settings. Settings that have the value are not
/// written, so a process without the right to write them succeeds on a node that is set up.
///
/// With IPv6 forwarding the kernel ignores router advertisements, and the node would lose a default route that it has from one.
/// So `accept_ra` of the interface of such a route is set to 2 before.
///
/// # Errors
/// The settings that could not be written.
pub fn enable_forwarding(
    proc: &Path,
    families: impl IntoIterator<Item = Family>,
) -> Result<Vec<KernelSetting>, Vec<UnsetSetting>> {
    let (mut changed, mut unset) = (Vec::new(), Vec::new());
    for (path, value) in wanted_settings(proc, families) {
        match write_if_different(proc, &path, value) {
            Ok(None) => {}
            Ok(Some(before)) => changed.push(KernelSetting { name: setting_name(&path), before, value }),
            Err(error) => unset.push(UnsetSetting { name: setting_name(&path), value, error }),
        }
    }
    if unset.is_empty() { Ok(changed) } else { Err(unset) }
}

/// Returns the settings that [`enable_forwarding`] would change, and those that cannot be read.
pub fn forwarding_differences(
    proc: &Path,
    families: impl IntoIterator<Item = Family>,
) -> (Vec<KernelSetting>, Vec<UnsetSetting>) {
    let (mut different, mut unreadable) = (Vec::new(), Vec::new());
    for (path, value) in wanted_settings(proc, families) {
        match read(proc, &path) {
            Ok(before) if before == value => {}
            Ok(before) => different.push(KernelSetting { name: setting_name(&path), before, value }),
            Err(error) => unreadable.push(UnsetSetting { name: setting_name(&path), value, error }),
        }
    }
    (different, unreadable)
}

/// Returns the settings that forwarding of these families needs, in the order in which they are written.
fn wanted_settings(proc: &Path, families: impl IntoIterator<Item = Family>) -> Vec<(String, &'static str)> {
    const FORWARDING: &str = "net/ipv6/conf/all/forwarding";
    let mut wanted = Vec::new();
    for family in families {
        match family {
            Family::V4 => wanted.push(("net/ipv4/ip_forward".to_owned(), "1")),
            Family::V6 => {
                if read(proc, FORWARDING).is_ok_and(|value| value != "1") {
                    let interfaces = advertised_default_routes(proc).into_iter();
                    let names = interfaces.map(|interface| format!("net/ipv6/conf/{interface}/accept_ra"));
                    let accepting = names.filter(|name| read(proc, name).is_ok_and(|value| value == "1"));
                    wanted.extend(accepting.map(|name| (name, "2")));
                }
                wanted.push((FORWARDING.to_owned(), "1"));
            }
        }
    }
    wanted
}

/// Returns the name of a setting, as in `net.ipv4.ip_forward`, from its path.
fn setting_name(path: &str) -> String {
    path.replace('/', ".")
}

/// Returns true if the kernel drops IPv4 packets from this interface whose source address it would not reach by it. The larger
/// of the values for the interface and for all interfaces applies; 2 is loose.
fn is_strict_rp_filter(proc: &Path, interface: &str) -> bool {
    let value = |name: &str| read(proc, &rp_filter(name)).ok().and_then(|value| value.parse::<u8>().ok());
    [interface, "all"].into_iter().filter_map(value).max() == Some(1)
}

/// Returns the setting that [`loosen_rp_filter`] would change.
pub fn rp_filter_difference(proc: &Path, interface: &str) -> Option<KernelSetting> {
    let path = rp_filter(interface);
    let before = read(proc, &path).ok().filter(|_| is_strict_rp_filter(proc, interface))?;
    Some(KernelSetting { name: setting_name(&path), before, value: "2" })
}

/// Makes the reverse path filter of an interface loose if it is strict: a source address must be reachable, by any interface.
/// Returns the changed setting.
///
/// # Errors
/// The setting cannot be written.
pub fn loosen_rp_filter(proc: &Path, interface: &str) -> Result<Option<KernelSetting>, UnsetSetting> {
    if !is_strict_rp_filter(proc, interface) {
        return Ok(None);
    }
    let path = rp_filter(interface);
    let name = || setting_name(&path);
    match write_if_different(proc, &path, "2") {
        Ok(before) => Ok(before.map(|before| KernelSetting { name: name(), before, value: "2" })),
        Err(error) => Err(UnsetSetting { name: name(), value: "2", error }),
    }
}

fn rp_filter(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/rp_filter")
}

/// Returns the interfaces of IPv6 default routes from router advertisements.
fn advertised_default_routes(proc: &Path) -> Vec<String> {
    let text = fs::read_to_string(proc.join("net/ipv6_route")).unwrap_or_default();
    let interface = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, _, _, _, _, flags, interface] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        (flags & ADVERTISED_DEFAULT == ADVERTISED_DEFAULT).then(|| interface.to_owned())
    };
    let mut interfaces: Vec<String> = text.lines().filter_map(interface).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

fn path(proc: &Path, name: &str) -> PathBuf {
    proc.join("sys").join(name)
}

fn read(proc: &Path, name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(proc, name))?.trim().to_owned())
}

/// Returns the value before if it was changed.
fn write_if_different(proc: &Path, name: &str, value: &str) -> io::Result<Option<String>> {
    let before = read(proc, name)?;
    if before == value {
        return Ok(None);
    }
    fs::write(path(proc, name), value)?;
    Ok(Some(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
fd000010024400010000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00450003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    /// Returns a folder that stands for /proc, with these settings.
    fn proc(settings: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(folder.path().join("net")).expect("a folder");
        fs::write(folder.path().join("net/ipv6_route"), ROUTES).expect("a file");
        for (name, value) in settings {
            let path = path(folder.path(), name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, format!("{value}\n")).expect("a file");
        }
        folder
    }

    #[test]
    fn forwarding_is_enabled_and_keeps_an_advertised_default_route() {
        let folder = proc(&[
            ("net/ipv4/ip_forward", "0"),
            ("net/ipv6/conf/all/forwarding", "0"),
            ("net/ipv6/conf/eth0/accept_ra", "1"),
            ("net/ipv6/conf/eth1/accept_ra", "1"),
        ]);
        let (different, unreadable) = forwarding_differences(folder.path(), Family::ALL);
        assert!(unreadable.is_empty(), "{unreadable:?}");
        let changed = enable_forwarding(folder.path(), Family::ALL).expect("all can be written");
        assert_eq!(different, changed);
        let changes: Vec<String> =
            changed.iter().map(|c| format!("{} {} {}", c.name, c.before, c.value)).collect();
        let expected = [
            "net.ipv4.ip_forward 0 1",
            "net.ipv6.conf.eth0.accept_ra 1 2",
            "net.ipv6.conf.all.forwarding 0 1",
        ];
        assert_eq!(changes, expected);
        assert!(enable_forwarding(folder.path(), Family::ALL).expect("nothing to write").is_empty());
    }

    #[test]
    fn settings_of_the_administrator_stay() {
        // accept_ra is off, or the node already forwards.
        for settings in [
            [("net/ipv6/conf/all/forwarding", "0"), ("net/ipv6/conf/eth0/accept_ra", "0")],
            [("net/ipv6/conf/all/forwarding", "1"), ("net/ipv6/conf/eth0/accept_ra", "1")],
        ] {
            let folder = proc(&settings);
            enable_forwarding(folder.path(), [Family::V6]).expect("all can be written");
            let accept_ra = read(folder.path(), "net/ipv6/conf/eth0/accept_ra").expect("a setting");
            assert_eq!(accept_ra, settings[1].1);
        }
    }

    #[test]
    fn settings_that_cannot_be_written_are_named() {
        let folder = proc(&[]);
        let unset = enable_forwarding(folder.path(), Family::ALL).expect_err("there are no settings");
        let texts: Vec<String> = unset.iter().map(ToString::to_string).collect();
        assert!(texts[0].starts_with("cannot set net.ipv4.ip_forward=1 (No such file"), "{texts:?}");
        assert!(texts[1].starts_with("cannot set net.ipv6.conf.all.forwarding=1 "), "{texts:?}");
    }

    #[test]
    fn a_strict_reverse_path_filter_becomes_loose() {
        // The values for all interfaces and for the interface, and the latter afterwards.
        for (all, before, after) in [
            ("0", "0", "0"),
            ("1", "0", "2"),
            ("0", "1", "2"),
            ("2", "1", "1"),
            ("1", "2", "2"),
            ("2", "0", "0"),
        ] {
            let name = "net/ipv4/conf/eth0/rp_filter";
            let folder = proc(&[("net/ipv4/conf/all/rp_filter", all), (name, before)]);
            let different = rp_filter_difference(folder.path(), "eth0");
            let changed = loosen_rp_filter(folder.path(), "eth0").expect("it can be written");
            assert_eq!(different, changed, "{all} {before}");
            assert_eq!(read(folder.path(), name).expect("a setting"), after, "{all} {before}");
            assert_eq!(changed.is_some(), before != after, "{all} {before}");
            assert!(!is_strict_rp_filter(folder.path(), "eth0"), "{all} {before}");
        }
    }
}
