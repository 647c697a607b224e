//! Release of unused memory to the kernel.

use std::fs;

/// Releases memory after rare work that needs much of it, such as a full sync.
pub(crate) fn release() {
    trim();
    unmap_code();
}

/// Unmaps this program's code. What goes on running is mapped again as it is called, from the page cache; what only the
/// start took (flags, files, help) is not, which is most of it.
pub(crate) fn unmap_code() {
    let (Ok(program), Ok(maps)) = (fs::read_link("/proc/self/exe"), fs::read_to_string("/proc/self/maps"))
    else {
        return;
    };
    let code = maps.lines().filter_map(|line| executable_range(line, program.to_str()?));
    for (start, length) in code {
        // SAFETY: the range is a mapping of this program's own file that cannot be written, so that each page is the
        // same when it is read from there again.
        if unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) } != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "code that is not needed stays mapped");
        }
    }
}

/// Start and length of the mapping of a program's code that a line of `/proc/PID/maps` tells of.
fn executable_range(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (range, rights) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?.trim_start();
    if rights != "r-xp" || path != program {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    Some((start, end.checked_sub(start)?))
}

/// Returns free heap memory to the kernel.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_meant() {
        let program = "/usr/bin/portcullis";
        let code =
            "55d0c0a00000-55d0c0a02000 r-xp 002f0000 fe:00 1234                       /usr/bin/portcullis";
        assert_eq!(executable_range(code, program), Some((0x55d0_c0a0_0000, 0x2000)));
        for other in [
            "55d0c0000000-55d0c0a00000 r--p 00000000 fe:00 1234                       /usr/bin/portcullis",
            "55d0c1000000-55d0c1100000 rw-p 00f00000 fe:00 1234                       /usr/bin/portcullis",
            "7f0000000000-7f0000100000 r-xp 00000000 fe:00 99                         /usr/lib/libc.so.6",
            "7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                          [vdso]",
            "7f0000000000-7f0000100000 rwxp 00000000 00:00 0 ",
            "",
        ] {
            assert_eq!(executable_range(other, program), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on() {
        release();
        let text = fs::read_to_string("/proc/self/maps").expect("it is always there");
        assert!(text.lines().count() > 3);
    }
}
