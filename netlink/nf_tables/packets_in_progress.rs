//! Packets that the kernel is evaluating.

use std::thread;
use std::time::Duration;

/// The wait if the kernel cannot tell when packets have been evaluated. The evaluation of a packet takes microseconds, and longer
/// if the processor is given to another virtual machine meanwhile.
const WITHOUT_MEMBARRIER: Duration = Duration::from_millis(20);

/// Waits until the packets have been evaluated that the kernel evaluates when this function is called, in all tables. Such a packet
/// continues with the rules from before a transaction, and with values that it looked up before.
///
/// The kernel evaluates packets in a read-side critical section of RCU, and this waits for a grace period: some milliseconds.
pub fn wait_for_packets() {
    // SAFETY: the system call has no pointers.
    let outcome = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if outcome != 0 {
        // Kernels with `nohz_full` do not have it.
        thread::sleep(WITHOUT_MEMBARRIER);
    }
}
