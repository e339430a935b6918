//! An OCI image archive, written octet by octet the same from the same input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Media types of the image specification.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// Full name with tag, such as `localhost/commpool-server:0.1.0`.
    pub reference: String,
    /// Processor, as Go and the specification call it: `amd64`, `arm64`.
    pub architecture: String,
    /// Files of the root file system.
    pub files: Vec<ImageFile>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// User and group, as numbers.
    pub user: String,
    /// Labels, also put on the manifest as annotations.
    pub labels: BTreeMap<String, String>,
}

/// One file of an image, owned by root.
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Path without leading slash.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// Content.
    pub content: Vec<u8>,
}

/// A blob by its digest.
struct Blob {
    media_type: &'static str,
    content: Vec<u8>,
    hex: String,
}

impl Blob {
    fn new(media_type: &'static str, content: Vec<u8>) -> Self {
        let hex = Sha256::digest(&content).iter().map(|octet| format!("{octet:02x}")).collect();
        Self { media_type, content, hex }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest(), "size": self.content.len()})
    }
}

/// Writes an image as an archive that both OCI tools and `docker load` read.
///
/// # Errors
/// When the file cannot be written.
pub fn write(image: &Image, file: &Path) -> Result<()> {
    let layer = Blob::new(LAYER, tar_of(&image.files.iter().map(ImageFile::entry).collect::<Vec<_>>())?);
    let config = Blob::json(CONFIG, &config(image, &layer));
    let manifest = Blob::json(
        MANIFEST,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": image.labels,
        }),
    );
    let mut described = manifest.descriptor();
    described["platform"] = json!({"os": "linux", "architecture": image.architecture});
    // containerd reads the name from the first, skopeo and others from the second.
    described["annotations"] = json!({
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.reference,
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]});
    // The same image in the older form of `docker save`, by paths into the blobs.
    let older = json!([{"Config": config.path(), "RepoTags": [image.reference], "Layers": [layer.path()]}]);
    let text = |value: Value| value.to_string().into_bytes();
    let mut entries = vec![
        entry("oci-layout", text(json!({"imageLayoutVersion": "1.0.0"}))),
        entry("index.json", text(index)),
        entry("manifest.json", text(older)),
    ];
    entries.extend([manifest, config, layer].map(|blob| entry(&blob.path(), blob.content)));
    let octets = tar_of(&entries)?;
    let output = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut output = BufWriter::new(output);
    output.write_all(&octets)?;
    output.flush().with_context(|| format!("cannot write {}", file.display()))
}

/// Configuration of the image.
fn config(image: &Image, layer: &Blob) -> Value {
    json!({
        "architecture": image.architecture,
        "os": "linux",
        "config": {
            "User": image.user,
            "Entrypoint": image.entrypoint,
            "WorkingDir": "/",
            "Labels": image.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
        "history": [{"created_by": "cargo xtask images"}],
    })
}

/// A file of an archive.
struct Entry {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

fn entry(path: &str, content: Vec<u8>) -> Entry {
    Entry { path: path.to_owned(), mode: 0o644, content }
}

impl ImageFile {
    fn entry(&self) -> Entry {
        Entry { path: self.path.clone(), mode: self.mode, content: self.content.clone() }
    }
}

/// A tar archive of files, with the folders above them left to whoever unpacks; times and owners are zero.
fn tar_of(entries: &[Entry]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(entry.mode);
        header.set_size(entry.content.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, &entry.path, entry.content.as_slice())?;
    }
    Ok(builder.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn image() -> Image {
        Image {
            reference: "localhost/trial:1".to_owned(),
            architecture: "amd64".to_owned(),
            files: vec![ImageFile { path: "trial".to_owned(), mode: 0o755, content: b"program".to_vec() }],
            entrypoint: vec!["/trial".to_owned()],
            user: "65532:65532".to_owned(),
            labels: BTreeMap::from([("org.opencontainers.image.title".to_owned(), "trial".to_owned())]),
        }
    }

    fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let read = |entry: std::io::Result<tar::Entry<'_, File>>| {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mtime().unwrap(), 0);
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (name, content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_digest_is_that_of_its_blob() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        write(&image(), &path).unwrap();
        let files = files(&path);
        for (name, content) in &files {
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(Blob::new(LAYER, content.clone()).hex, hex);
            }
        }
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest: Value = serde_json::from_slice(&files[&manifest]).unwrap();
        for descriptor in [&manifest["config"], &manifest["layers"][0]] {
            let blob = descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
            assert_eq!(descriptor["size"], files[&blob].len());
        }
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/trial:1");
    }

    #[test]
    fn the_same_image_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.tar"), folder.path().join("2.tar"));
        write(&image(), &first).unwrap();
        write(&image(), &second).unwrap();
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
    }
}
