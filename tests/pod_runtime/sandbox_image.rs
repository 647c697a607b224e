//! The sandbox image of a runtime, whose only process is `portcullis pause`, as `deploy/image/build` configures it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::node::succeed;

/// The name of the image.
pub(crate) const NAME: &str = "localhost/portcullis-pause:test";

/// Writes the image around a root file system as an OCI archive into a folder. Returns the archive.
pub(crate) fn write(rootfs: &Path, folder: &Path) -> PathBuf {
    let layout = folder.join("image");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("folders");
    let layer = folder.join("layer.tar");
    tar(&layer, rootfs);
    let layer = add_blob(&blobs, &fs::read(&layer).expect("tar wrote it"));
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"User": "65535:65535", "Entrypoint": ["/bin/portcullis", "pause"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = add_blob(&blobs, config.to_string().as_bytes());
    let descriptor = |kind: &str, blob: &Value| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": blob["digest"], "size": blob["size"]});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config), "layers": [descriptor("layer.v1.tar", &layer)],
    });
    let manifest = add_blob(&blobs, manifest.to_string().as_bytes());
    let mut listed = descriptor("manifest.v1+json", &manifest);
    listed["annotations"] = json!({"io.containerd.image.name": NAME});
    let index = json!({"schemaVersion": 2, "manifests": [listed]});
    fs::write(layout.join("index.json"), index.to_string()).expect("written");
    fs::write(layout.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())
        .expect("written");
    let archive = folder.join("pause.tar");
    tar(&archive, &layout);
    archive
}

/// Writes a folder as a tar archive.
fn tar(archive: &Path, folder: &Path) {
    let output = Command::new("tar").arg("-cf").arg(archive).arg("-C").arg(folder).arg(".").output();
    succeed(output.expect("tar runs"), "tar");
}

/// Writes a blob. Returns its digest and size.
fn add_blob(blobs: &Path, content: &[u8]) -> Value {
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(blobs.join(&digest), content).expect("written");
    json!({"digest": format!("sha256:{digest}"), "size": content.len()})
}
