//! Consensus as a state machine: inputs in, outputs out, without clock, disk, network or thread.
//!
//! Ticks are an input and the seed of the election timeouts is one, so the same inputs give the same outputs. The driver
//! persists, sends and applies what [`raft::Ready`] says, in that order.

pub mod message;
pub mod raft;

/// CRC32C (Castagnoli) of some bytes: what guards every record on disk.
pub fn checksum(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn checksum_has_the_value_that_rfc_3720_gives() {
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        assert_eq!(checksum(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
    }
}
