//! Runs a test inside user-mode Linux, whose kernel has ip_vs and dummy. It stands in for the laboratory's
//! `uml::inside` and is to go when that is there.

use std::process::{Command, Stdio};
use std::{env, fs, thread};

const INSIDE: &str = "PORTCULLIS_INSIDE_UML";

/// Modules whose absence the tests would notice.
const MODULES: &str = "ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_mh ip_vs_sh dummy ipv6";

/// Inside the machine runs `test`; on the host boots the machine and runs the calling test there.
///
/// # Panics
/// If the test does not pass inside, with all that was printed.
pub(crate) fn inside(test: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        return test();
    }
    let name = thread::current().name().expect("tests have named threads").to_owned();
    let folder = env::temp_dir().join(format!("portcullis-uml-{}-{name}", std::process::id()));
    fs::create_dir(&folder).expect("a folder for the machine");
    let (place, program) = (folder.display(), env::current_exe().expect("a path"));
    let script = format!(
        "#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run
mkdir -p /run/uml/lib/modules; ln -s /usr/lib/uml/modules/$(uname -r) /run/uml/lib/modules/
export PATH=/usr/sbin:/usr/bin:/sbin:/bin {INSIDE}=1
for module in {MODULES}; do modprobe -d /run/uml $module; done
ip link set lo up
'{}' --exact '{name}' --nocapture >{place}/printed 2>&1 </dev/null && echo passed >{place}/outcome
poweroff -f
",
        program.display()
    );
    let init = folder.join("init");
    fs::write(&init, script).expect("the machine's folder can be written to");
    Command::new("chmod").arg("+x").arg(&init).status().expect("chmod runs");
    let console = Command::new("linux.uml")
        .args(["rootfstype=hostfs", "rw", "mem=512M", "con=null", "con0=fd:0,fd:1", "quiet"])
        .arg(format!("init={}", init.display()))
        .stdin(Stdio::null())
        .output()
        .expect("linux.uml runs: apt-get install user-mode-linux kmod ipvsadm");
    let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    let (printed, passed) = (read("printed"), read("outcome") == "passed\n");
    fs::remove_dir_all(&folder).expect("the machine's folder can be removed");
    assert!(passed, "{}\n{printed}", String::from_utf8_lossy(&console.stdout));
    println!("{printed}");
}
