//! Images of the product, made without an engine and without a base, as OCI archives: one static program each, and the
//! database of Debian's packages.

mod build;
mod database;
mod debian;
mod elf;
mod oci;
mod registry;

pub use build::{PARTS, PARTS_OF_STANDARD, archive, build, pause, reference, triple};
pub use database::DATABASE;
pub use oci::{Image, ImageFile, ImageFolder, write as write_archive};
pub use registry::{is_loopback, push};
