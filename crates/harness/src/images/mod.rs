//! Images of the product, made without an engine and without a base: one static program each, as OCI archives.

mod archive;
mod build;
mod registry;

pub use archive::{Image, ImageFile, write as write_archive};
pub use build::{PARTS, build, pause, reference, triple};
pub use registry::{is_loopback, push};
