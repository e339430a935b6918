//! An OCI image archive, written octet by octet the same from the same input.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::EntryType;

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
    /// Folders that are not just root's: all others are left to whoever unpacks.
    pub folders: Vec<ImageFolder>,
    /// Files of the root file system.
    pub files: Vec<ImageFile>,
    /// Program and first arguments.
    pub entrypoint: Vec<String>,
    /// Further arguments where none are given.
    pub command: Vec<String>,
    /// Variables, each `NAME=VALUE`.
    pub environment: Vec<String>,
    /// Signal that ends the program; none: SIGTERM.
    pub stop_signal: Option<String>,
    /// User and group, as numbers.
    pub user: String,
    /// Labels, also put on the manifest as annotations.
    pub labels: BTreeMap<String, String>,
}

/// A folder of an image.
#[derive(Clone, Debug)]
pub struct ImageFolder {
    /// Path without leading slash.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// User and group whose it is.
    pub owner: u32,
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
    let folders = image.folders.iter().map(ImageFolder::entry);
    let layer = Blob::new(LAYER, tar_of(folders.chain(image.files.iter().map(ImageFile::entry)))?);
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
    let octets = tar_of(entries)?;
    let output = File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    let mut output = BufWriter::new(output);
    output.write_all(&octets)?;
    output.flush().with_context(|| format!("cannot write {}", file.display()))
}

/// Configuration of the image.
fn config(image: &Image, layer: &Blob) -> Value {
    let mut run = json!({
        "User": image.user,
        "Entrypoint": image.entrypoint,
        "WorkingDir": "/",
        "Labels": image.labels,
    });
    let lists = [("Cmd", &image.command), ("Env", &image.environment)];
    lists.into_iter().filter(|(_, list)| !list.is_empty()).for_each(|(key, list)| run[key] = json!(list));
    image.stop_signal.iter().for_each(|signal| run["StopSignal"] = json!(signal));
    json!({
        "architecture": image.architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer.digest()]},
        "history": [{"created_by": "cargo xtask images"}],
    })
}

/// A file or folder of an archive.
struct Entry {
    path: String,
    mode: u32,
    owner: u32,
    kind: EntryType,
    content: Vec<u8>,
}

fn entry(path: &str, content: Vec<u8>) -> Entry {
    Entry { path: path.to_owned(), mode: 0o644, owner: 0, kind: EntryType::Regular, content }
}

impl ImageFile {
    fn entry(&self) -> Entry {
        Entry { mode: self.mode, ..entry(&self.path, self.content.clone()) }
    }
}

impl ImageFolder {
    fn entry(&self) -> Entry {
        let Self { path, mode, owner } = self;
        let path = format!("{path}/");
        Entry { path, mode: *mode, owner: *owner, kind: EntryType::Directory, content: Vec::new() }
    }
}

/// A tar archive, with the folders above its entries left to whoever unpacks; times are zero.
fn tar_of(entries: impl IntoIterator<Item = Entry>) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_size(entry.content.len() as u64);
        header.set_mtime(0);
        header.set_uid(entry.owner.into());
        header.set_gid(entry.owner.into());
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
            folders: vec![ImageFolder { path: "var/trial".to_owned(), mode: 0o700, owner: 7 }],
            files: vec![ImageFile { path: "trial".to_owned(), mode: 0o755, content: b"program".to_vec() }],
            entrypoint: vec!["/trial".to_owned()],
            command: vec!["again".to_owned()],
            environment: vec!["A=b".to_owned()],
            stop_signal: Some("SIGINT".to_owned()),
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
    fn a_configuration_says_only_what_there_is_to_say() {
        let layer = Blob::new(LAYER, Vec::new());
        let full = config(&image(), &layer)["config"].clone();
        assert_eq!((&full["Cmd"], &full["Env"]), (&json!(["again"]), &json!(["A=b"])));
        assert_eq!(full["StopSignal"], "SIGINT");
        let bare = Image { command: Vec::new(), environment: Vec::new(), stop_signal: None, ..image() };
        let bare = config(&bare, &layer)["config"].as_object().unwrap().clone();
        assert!(["Cmd", "Env", "StopSignal"].iter().all(|key| !bare.contains_key(*key)), "{bare:?}");
    }

    #[test]
    fn folders_have_owners_and_files_are_roots() {
        let entries = [image().folders[0].entry(), image().files[0].entry()];
        let octets = tar_of(entries).unwrap();
        let mut archive = tar::Archive::new(octets.as_slice());
        let of = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            let header = entry.header();
            (header.entry_type(), header.uid().unwrap(), header.mode().unwrap())
        };
        let found: Vec<_> = archive.entries().unwrap().map(of).collect();
        assert_eq!(found, [(EntryType::Directory, 7, 0o700), (EntryType::Regular, 0, 0o755)]);
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
