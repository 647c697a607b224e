//! `oom_score_adj` of this process.

use std::fs;
use std::path::Path;

/// Sets `oom_score_adj`, from -1000 (never kill) to 1000 (kill first). Errors are only logged: lowering it requires
/// `CAP_SYS_RESOURCE`, and Services can be served without.
pub(crate) fn set(score: i32) {
    set_in(Path::new("/proc/self/oom_score_adj"), score);
}

fn set_in(path: &Path, score: i32) {
    // Written only if it differs: the container runtime may have set it, and the container may lack the right.
    let current = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    if current == Some(score) {
        return;
    }
    match fs::write(path, score.to_string()) {
        Ok(()) => tracing::debug!(score, was = current, "set oom_score_adj"),
        Err(error) => tracing::warn!(
            score, %error, was = current,
            "cannot set oom_score_adj (lowering it requires CAP_SYS_RESOURCE); the kernel may kill this process early when \
             memory runs out"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn score_is_written_if_it_differs() {
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        let path = folder.path().join("oom_score_adj");
        for (before, score, after) in [("0\n", -999, "-999"), ("-999\n", -999, "-999\n")] {
            fs::write(&path, before).expect("it can be written");
            set_in(&path, score);
            assert_eq!(fs::read_to_string(&path).expect("it is there"), after);
        }
    }
}
