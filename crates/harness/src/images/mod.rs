//! Images of the product, made without an engine and without a base: one static program each, as OCI archives.

mod build;
mod oci;
mod registry;

pub use build::{PARTS, archive, build, pause, reference, triple};
pub use oci::{Image, ImageFile, write as write_archive};
pub use registry::{is_loopback, push};
