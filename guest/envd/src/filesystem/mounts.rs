//! Which file systems can be watched.

/// Magic numbers of file systems whose changes happen elsewhere.
const NFS: u64 = 0x6969;
const CIFS: u64 = 0xff53_4d42;
const SMB: u64 = 0x517b;
const SMB2: u64 = 0xfe53_4d42;
const FUSE: u64 = 0x6573_5546;

/// Whether `path` is on a network file system. A root of the same kind exempts it: guests
/// may boot from a shared directory, which reports itself as FUSE.
pub(crate) fn is_network(path: &str) -> std::io::Result<bool> {
    let kind = magic(path)?;
    Ok([NFS, CIFS, SMB, SMB2, FUSE].contains(&kind) && (kind != FUSE || magic("/")? != FUSE))
}

fn magic(path: &str) -> std::io::Result<u64> {
    let found = rustix::fs::statfs(path)?;
    // The type's width and sign differ between C libraries; the number has 32 bits.
    #[expect(
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        clippy::allow_attributes_without_reason,
        reason = "widths differ between targets"
    )]
    let kind = found.f_type as u64 & 0xffff_ffff;
    Ok(kind)
}
