//! Ed25519 and SHA-256: the two that cost a frame more than sealing does.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, ParsedPublicKey};

/// A private key. The library wipes it when it is dropped.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// None unless it has 32 bytes.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_seed_unchecked(seed).ok().map(Self)
    }

    /// 64 bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut out = [0; 64];
        out.copy_from_slice(self.0.sign(message).as_ref());
        out
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(REDACTED)")
    }
}

/// A public key.
pub struct VerifyingKey(ParsedPublicKey);

impl VerifyingKey {
    /// None unless it has 32 bytes. Whether it is canonical and of no small order is its user's to check.
    pub fn new(public: &[u8]) -> Option<Self> {
        ParsedPublicKey::new(&ED25519, public).ok().map(Self)
    }

    /// Whether the signature is that of the message.
    pub fn holds(&self, signature: &[u8], message: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

/// 32 bytes.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, data).as_ref());
    out
}
