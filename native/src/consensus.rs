//! What the consensus room needs of Rust.

use pyo3::prelude::*;

/// CRC32C of some bytes.
#[pyfunction]
pub(crate) fn crc32c(data: &[u8]) -> u32 {
    meshfold_consensus::checksum(data)
}
