//! How ready the kernel is to end this process when memory runs out.

use std::fs;
use std::path::Path;

/// Sets the process' score, from -1000 (never) to 1000 (first). Failing is logged: a lower score takes
/// `CAP_SYS_RESOURCE`, and Services can be served without.
pub(crate) fn set(score: i32) {
    set_in(Path::new("/proc/self/oom_score_adj"), score);
}

fn set_in(path: &Path, score: i32) {
    // Written only where it differs: a container may have been given it, and lack the right to set it.
    let now = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    if now == Some(score) {
        return;
    }
    match fs::write(path, score.to_string()) {
        Ok(()) => tracing::debug!(score, was = now, "oom_score_adj is set"),
        Err(error) => tracing::warn!(
            score, %error, was = now,
            "oom_score_adj cannot be set (it takes CAP_SYS_RESOURCE to lower it); the process may be ended early when \
             memory runs out"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_written_where_it_differs() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("oom_score_adj");
        for (before, score, after) in [("0\n", -999, "-999"), ("-999\n", -999, "-999\n")] {
            fs::write(&path, before).expect("it can be written");
            set_in(&path, score);
            assert_eq!(fs::read_to_string(&path).expect("it is there"), after);
        }
    }
}
