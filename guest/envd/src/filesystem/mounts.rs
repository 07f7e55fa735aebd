//! Which file systems can be watched.

/// Magic numbers of file systems whose changes happen elsewhere.
const NFS: i64 = 0x6969;
const CIFS: i64 = 0xff53_4d42;
const SMB: i64 = 0x517b;
const SMB2: i64 = 0xfe53_4d42;
const FUSE: i64 = 0x6573_5546;

/// Whether `path` is on a network file system. A root of the same kind exempts it: guests
/// may boot from a shared directory, which reports itself as FUSE.
pub(crate) fn is_network(path: &str) -> std::io::Result<bool> {
    let kind = magic(path)?;
    Ok([NFS, CIFS, SMB, SMB2, FUSE].contains(&kind) && (kind != FUSE || magic("/")? != FUSE))
}

fn magic(path: &str) -> std::io::Result<i64> {
    // The number has 32 bits; a sign would be that of a narrower field.
    Ok(rustix::fs::statfs(path)?.f_type & 0xffff_ffff)
}
