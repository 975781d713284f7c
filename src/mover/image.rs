//! How a volume without a file system is kept: as one file, alone in its claim's folder.

/// Bytes between two cuts of an image: as many as the longest chunk of other files has, so that whoever reads is ready for it.
pub const PIECE: u64 = 2 << 20;

/// The image's name in the folder of the claim that was saved.
pub fn name_of(claim: &str) -> String {
    format!("{claim}.img")
}
