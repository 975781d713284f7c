//! The envelope round every object and every blob: AES-256 in counter mode, then Poly1305-AES over the ciphertext.
//!
//! Layout: `IV (16 random bytes) ‖ ciphertext ‖ tag (16)`. The one-time Poly1305 key is `r ‖ AES-128_k(IV)`. This is the construction of
//! Bernstein's "The Poly1305-AES message-authentication code" as restic's repository format uses it.

use aes::cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher, StreamCipherCoreWrapper};
use aes::{Aes128, Aes256};
use ctr::{CtrCore, flavors::Ctr128BE};
use poly1305::Poly1305;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes before the ciphertext.
pub const IV: usize = 16;
/// Bytes after the ciphertext.
pub const TAG: usize = 16;
/// Bytes that the envelope adds.
pub const OVERHEAD: usize = IV + TAG;

/// The repository's own key, which every password opens. Forgotten by memory when dropped; never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    encrypt: [u8; 32],
    mac_k: [u8; 16],
    mac_r: [u8; 16],
}

/// The envelope's tag does not fit its bytes and key: damaged, or sealed by another key.
#[derive(Debug, thiserror::Error)]
#[error("the bytes are damaged or sealed with another key")]
pub struct NotAuthentic;

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

impl MasterKey {
    /// A new random key.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 64];
        crate::random::fill(&mut bytes)?;
        let key = MasterKey::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// From 32 bytes for AES-256, 16 for `k` and 16 for `r`, as a password's scrypt output has them.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = MasterKey { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }

    /// The same 64 bytes, to be handed to a worker over a pipe.
    pub fn to_bytes(&self) -> zeroize::Zeroizing<[u8; 64]> {
        let mut bytes = zeroize::Zeroizing::new([0u8; 64]);
        bytes[..32].copy_from_slice(&self.encrypt);
        bytes[32..48].copy_from_slice(&self.mac_k);
        bytes[48..].copy_from_slice(&self.mac_r);
        bytes
    }

    /// The key expanded for use by one thread.
    pub fn cipher(&self) -> Cipher {
        Cipher { data: Aes256::new(&self.encrypt.into()), mac: Aes128::new(&self.mac_k.into()), r: self.mac_r }
    }
}

/// An expanded key: seals and opens.
#[derive(Clone)]
pub struct Cipher {
    data: Aes256,
    mac: Aes128,
    r: [u8; 16],
}

impl Cipher {
    /// Seals where it stands: `buffer` is [`IV`] bytes of room, the plain bytes, and [`TAG`] bytes of room.
    ///
    /// # Panics
    /// If `buffer` has not even the room.
    pub fn seal_in_place(&self, buffer: &mut [u8]) -> Result<(), getrandom::Error> {
        let (iv, rest) = buffer.split_at_mut(IV);
        let (plain, tag) = rest.split_at_mut(rest.len() - TAG);
        crate::random::fill(iv)?;
        let iv: &[u8; IV] = (&*iv).try_into().expect("split at IV bytes");
        self.keystream(iv, plain);
        tag.copy_from_slice(&self.tag(iv, plain));
        Ok(())
    }

    /// Seals a copy of `plain`.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, getrandom::Error> {
        let mut buffer = vec![0u8; plain.len() + OVERHEAD];
        buffer[IV..IV + plain.len()].copy_from_slice(plain);
        self.seal_in_place(&mut buffer)?;
        Ok(buffer)
    }

    /// Opens an envelope where it stands and returns the plain bytes within it. Nothing is decrypted before the tag was found right.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], NotAuthentic> {
        if sealed.len() < OVERHEAD {
            return Err(NotAuthentic);
        }
        let end = sealed.len() - TAG;
        let (body, tag) = sealed.split_at_mut(end);
        let (iv, cipher) = body.split_at_mut(IV);
        let iv: &[u8; IV] = (&*iv).try_into().expect("split at IV bytes");
        // One OR over all differences: no early exit that would tell where the first differing byte is.
        let difference = self.tag(iv, cipher).iter().zip(&*tag).fold(0, |all, (a, b)| all | (a ^ b));
        if difference != 0 {
            return Err(NotAuthentic);
        }
        self.keystream(iv, cipher);
        Ok(cipher)
    }

    /// Opens a copy.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
        let mut copy = sealed.to_vec();
        let length = self.open_in_place(&mut copy)?.len();
        copy.truncate(IV + length);
        copy.drain(..IV);
        Ok(copy)
    }

    fn keystream(&self, iv: &[u8; IV], bytes: &mut [u8]) {
        let core = CtrCore::<_, Ctr128BE>::inner_iv_init(self.data.clone(), iv.into());
        StreamCipherCoreWrapper::from_core(core).apply_keystream(bytes);
    }

    fn tag(&self, iv: &[u8; IV], cipher: &[u8]) -> [u8; TAG] {
        let mut once = [0u8; 32];
        once[..16].copy_from_slice(&self.r);
        let mut s = (*iv).into();
        self.mac.encrypt_block(&mut s);
        once[16..].copy_from_slice(&s);
        Poly1305::new(&once.into()).compute_unpadded(cipher).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_bytes_open_again_at_every_length_round_a_block() {
        let cipher = MasterKey::random().unwrap().cipher();
        for length in (0..70).chain([1000, 4096, 100_003]) {
            let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let sealed = cipher.seal(&plain).unwrap();
            assert_eq!(sealed.len(), length + OVERHEAD);
            assert_eq!(cipher.open(&sealed).unwrap(), plain);
        }
    }

    #[test]
    fn any_flipped_bit_is_refused() {
        let cipher = MasterKey::random().unwrap().cipher();
        let sealed = cipher.seal(b"the only copy").unwrap();
        for byte in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[byte] ^= 1 << (byte % 8);
            assert!(cipher.open(&damaged).is_err(), "byte {byte}");
        }
        for length in 0..sealed.len() {
            assert!(cipher.open(&sealed[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn the_poly1305_aes_test_vectors_of_the_paper_hold() {
        // Bernstein, "The Poly1305-AES message-authentication code", appendix B.
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let mut bytes = [0u8; 64];
        bytes[32..48].copy_from_slice(&hex("ec074c835580741701425b623235add6"));
        bytes[48..].copy_from_slice(&hex("851fc40c3467ac0be05cc20404f3f700"));
        let cipher = MasterKey::from_bytes(&bytes).cipher();
        let nonce: [u8; 16] = hex("fb447350c4e868c52ac3275cf9d4327e").try_into().unwrap();
        assert_eq!(cipher.tag(&nonce, &hex("f3f6")).to_vec(), hex("f4c633c3044fc145f84f335cb81953de"));
    }
}
