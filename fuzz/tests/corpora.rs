//! Runs the fuzz targets on their corpora, and on inputs that once found a fault: one test for each target and folder.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use portcullis_fuzz::{TARGETS, Target};

/// The folders of inputs, and whether each target must have some.
const FOLDERS: [(&str, bool); 2] = [("corpus", true), ("regressions", false)];

/// Inputs that are too large for a folder: a name, the target, and a text with the number of its repetitions. Files have at most 200,000
/// documents.
const LARGE_INPUTS: [(&str, &str, &str, usize); 2] = [
    ("more_yaml_documents_than_a_file_may_have", "manifests", "---\na\n", 200_001),
    ("more_json_documents_than_a_file_may_have", "manifests", "1\n", 200_001),
];

fn main() -> ExitCode {
    let trials = FOLDERS.iter().flat_map(|(folder, is_required)| {
        TARGETS.iter().map(move |target| {
            let run = move || run(target, folder, *is_required);
            Trial::test(format!("{folder}::{}", target.name), run)
        })
    });
    let mut trials: Vec<Trial> = trials.collect();
    trials.push(Trial::test("every_folder_belongs_to_a_target", every_folder_belongs_to_a_target));
    trials.extend(LARGE_INPUTS.map(|(name, target, part, count)| {
        Trial::test(format!("large::{name}"), move || {
            Target::named(target).run(part.repeat(count).as_bytes());
            Ok(())
        })
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run(target: &Target, folder: &str, is_required: bool) -> Result<(), libtest_mimic::Failed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target.name);
    let files = match fs::read_dir(&folder) {
        Ok(files) => files.collect::<Result<Vec<_>, _>>()?,
        Err(_) if !is_required => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", folder.display()).into()),
    };
    if files.is_empty() {
        return Err(format!("{} is empty", folder.display()).into());
    }
    for file in files {
        let path = file.path();
        let input = fs::read(&path)?;
        // Names the input of a panic.
        println!("{}", path.display());
        target.run(&input);
    }
    Ok(())
}

fn every_folder_belongs_to_a_target() -> Result<(), libtest_mimic::Failed> {
    for (folder, _) in FOLDERS {
        let Ok(folders) = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)) else { continue };
        for entry in folders {
            let name = entry?.file_name();
            if !TARGETS.iter().any(|target| *target.name == *name) {
                return Err(format!("{folder}/{} belongs to no target", name.display()).into());
            }
        }
    }
    Ok(())
}
