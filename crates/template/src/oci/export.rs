//! Layers of a template as an OCI image layout in one tar archive.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, openat, readlinkat,
    statat,
};
use rustix::io::Errno;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use warren_service::fault;

use super::image::architecture;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);
/// Each level holds a descriptor.
const MAX_DEPTH: usize = 260;
const MAX_XATTR: usize = 64 * 1024;
/// Longest name and link of a plain header.
const PLAIN_NAME: usize = 100;
const BLOCK: usize = 512;
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// What an exported image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: String,
    pub(crate) workdir: Option<String>,
    pub(crate) command: Option<Vec<String>>,
    pub(crate) labels: BTreeMap<String, String>,
    /// Tag under which it is found.
    pub(crate) tag: String,
}

/// Writes the image of these layers, lowest first, to an empty file. Two exports of the same
/// layers are the same bytes.
pub(crate) fn export(layers: &[PathBuf], about: &About, into: File) -> io::Result<File> {
    let mut out = Out::new(into);
    let mut blobs = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let (digest, diff_id, size) = out.packed(layer, blob_name)?;
        // The same layer twice is one blob, but the archive may hold it twice.
        blobs.push(Blob { digest, size });
        diff_ids.push(diff_id);
    }
    let env: Vec<String> = about.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {
            "Env": env, "User": about.user, "WorkingDir": about.workdir.as_deref().unwrap_or(""),
            "Cmd": about.command, "Labels": about.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [],
    });
    let config = out.document(&config)?;
    let layers: Vec<_> = blobs.iter().map(|blob| blob.descriptor(LAYER)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": config.descriptor(CONFIG), "layers": layers,
    });
    let manifest = out.document(&manifest)?;
    let mut described = manifest.descriptor(MANIFEST);
    described["platform"] = json!({"architecture": architecture(), "os": "linux"});
    described["annotations"] = json!({"org.opencontainers.image.ref.name": about.tag});
    let index = json!({"schemaVersion": 2, "manifests": [described]});
    out.file("index.json", index.to_string().as_bytes())?;
    out.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut file = out.finish()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Something in the archive.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, kind: &str) -> serde_json::Value {
        json!({"mediaType": kind, "digest": self.digest, "size": self.size})
    }
}

/// A tar archive that is written to an empty file.
pub(crate) struct Out {
    file: BufWriter<File>,
}

fn plain_header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}

fn digest_of(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

fn blob_name(digest: &str) -> String {
    digest.replacen("sha256:", "blobs/sha256/", 1)
}

impl Out {
    pub(crate) fn new(into: File) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 20, into),
        }
    }

    /// Ends the archive and gives its file back.
    pub(crate) fn finish(mut self) -> io::Result<File> {
        self.file.write_all(&[0; 2 * BLOCK])?;
        let file = self.file.into_inner();
        file.map_err(io::IntoInnerError::into_error)
    }

    /// Length of what was written.
    pub(crate) fn position(&mut self) -> io::Result<u64> {
        self.file.stream_position()
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        match over {
            0 => Ok(()),
            over => self.file.write_all(&[0; BLOCK][over..]),
        }
    }

    pub(crate) fn file(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let header = plain_header(name, bytes.len() as u64)?;
        self.copy(&header, bytes)
    }

    /// Writes a file that anybody may run.
    pub(crate) fn program(&mut self, name: &str, size: u64, content: impl Read) -> io::Result<()> {
        let mut header = plain_header(name, size)?;
        header.set_mode(0o755);
        header.set_cksum();
        self.copy(&header, content)
    }

    fn copy(&mut self, header: &Header, content: impl Read) -> io::Result<()> {
        let size = header.entry_size()?;
        self.file.write_all(header.as_bytes())?;
        if io::copy(&mut content.take(size), &mut self.file)? != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(size)
    }

    fn document(&mut self, value: &serde_json::Value) -> io::Result<Blob> {
        let bytes = value.to_string().into_bytes();
        let mut hasher = Sha256::new();
        hasher.update(&bytes);
        let digest = digest_of(hasher);
        self.file(&blob_name(&digest), &bytes)?;
        Ok(Blob {
            digest,
            size: bytes.len() as u64,
        })
    }

    /// Writes a directory, compressed, as the file that `name` gives for its digest. The
    /// header comes last, when that is known. Gives the digests, compressed and plain, and
    /// the length.
    pub(crate) fn packed(
        &mut self,
        dir: &Path,
        name: impl FnOnce(&str) -> String,
    ) -> io::Result<(String, String, u64)> {
        let start = self.file.stream_position()?;
        self.file.write_all(&[0; BLOCK])?;
        let (digest, diff_id, size) = packed(dir, &mut self.file)?;
        self.pad(size)?;
        let end = self.file.stream_position()?;
        self.file.seek(SeekFrom::Start(start))?;
        let header = plain_header(&name(&digest), size)?;
        self.file.write_all(header.as_bytes())?;
        self.file.seek(SeekFrom::Start(end))?;
        Ok((digest, diff_id, size))
    }
}

/// Writes a layer, compressed; gives its digests in that form and plain, and its length.
fn packed(dir: &Path, into: &mut impl Write) -> io::Result<(String, String, u64)> {
    let plain = Hashed::new(GzEncoder::new(Hashed::new(into), Compression::fast()));
    let mut packer = Packer {
        out: plain,
        linked: HashMap::new(),
    };
    let root = openat(CWD, dir, DIRECTORY, Mode::empty())?;
    packer.directory(&root, Path::new(""), 0)?;
    packer.out.write_all(&[0; 2 * BLOCK])?;
    let (gzip, diff_id, _) = packer.out.finish();
    let (_, digest, size) = gzip.finish()?.finish();
    Ok((digest, diff_id, size))
}

/// Counts and hashes what passes.
struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (W, String, u64) {
        (self.inner, digest_of(self.hasher), self.bytes)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the entries of one layer.
struct Packer<W> {
    out: W,
    /// Where files with several names were first, by device and inode.
    linked: HashMap<(u64, u64), PathBuf>,
}

/// Names and values.
type Attributes = Vec<(String, Vec<u8>)>;

/// An entry that is about to be written.
struct Entry<'a> {
    path: &'a Path,
    kind: EntryType,
    link: Option<Vec<u8>>,
    size: u64,
    xattrs: Attributes,
}

#[expect(
    clippy::unnecessary_cast,
    reason = "the fields' types differ by architecture"
)]
fn inode(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        names.sort();
        for name in names {
            let place = path.join(OsStr::from_bytes(name.to_bytes()));
            self.entry(dir, &name, path, &place, depth)?;
            fault::point("export.writing");
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        above: &Path,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mut entry = Entry {
            path,
            kind: EntryType::Regular,
            link: None,
            size: 0,
            xattrs: Vec::new(),
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let opened = openat(dir, name, DIRECTORY, Mode::empty())?;
                let (xattrs, is_opaque) = attributes(&opened)?;
                (entry.kind, entry.xattrs) = (EntryType::Directory, xattrs);
                self.header(&entry, &stat)?;
                if is_opaque {
                    self.mark(&path.join(".wh..wh..opq"))?;
                }
                self.directory(&opened, path, depth + 1)
            }
            FileType::RegularFile => self.regular(dir, name, entry, &stat),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())?;
                (entry.kind, entry.link) = (EntryType::Symlink, Some(target.into_bytes()));
                self.header(&entry, &stat)
            }
            FileType::Fifo => {
                entry.kind = EntryType::Fifo;
                self.header(&entry, &stat)
            }
            // A deletion.
            FileType::CharacterDevice if stat.st_rdev == 0 => {
                let mut mark = b".wh.".to_vec();
                mark.extend_from_slice(name.to_bytes());
                self.mark(&above.join(OsStr::from_bytes(&mark)))
            }
            // Sockets mean nothing elsewhere, and sandboxes can't make devices.
            _ => Ok(()),
        }
    }

    fn regular(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        mut entry: Entry<'_>,
        stat: &Stat,
    ) -> io::Result<()> {
        let linked = (stat.st_nlink > 1)
            .then(|| self.linked.get(&inode(stat)).cloned())
            .flatten();
        if let Some(first) = linked {
            let first = first.into_os_string().into_vec();
            (entry.kind, entry.link) = (EntryType::Link, Some(first));
            return self.header(&entry, stat);
        }
        if stat.st_nlink > 1 {
            self.linked.insert(inode(stat), entry.path.to_owned());
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(dir, name, flags, Mode::empty())?;
        entry.xattrs = attributes(&file)?.0;
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        self.header(&entry, stat)?;
        let copied = io::copy(&mut File::from(file).take(entry.size), &mut self.out)?;
        if copied != entry.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.pad(copied)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        match usize::try_from(size % BLOCK as u64).unwrap_or(0) {
            0 => Ok(()),
            over => self.out.write_all(&[0; BLOCK][over..]),
        }
    }

    /// Writes an empty file that says something of what lies below.
    fn mark(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_mode(0o600);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        self.named(header, path, None, &[])
    }

    fn header(&mut self, entry: &Entry<'_>, stat: &Stat) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(u64::from(stat.st_uid));
        header.set_gid(u64::from(stat.st_gid));
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
        header.set_size(entry.size);
        self.named(header, entry.path, entry.link.as_deref(), &entry.xattrs)
    }

    /// Writes a header with its names, in an extension header where they are long.
    fn named(
        &mut self,
        mut header: Header,
        path: &Path,
        link: Option<&[u8]>,
        xattrs: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        let path = path.as_os_str().as_bytes();
        let mut extended: Vec<u8> = Vec::new();
        let size = header.entry_size()?;
        if size >= 1 << 33 {
            record(&mut extended, "size", size.to_string().as_bytes());
        }
        if path.len() > PLAIN_NAME {
            record(&mut extended, "path", path);
        }
        if let Some(link) = link.filter(|link| link.len() > PLAIN_NAME) {
            record(&mut extended, "linkpath", link);
        }
        for (name, value) in xattrs {
            record(&mut extended, &format!("SCHILY.xattr.{name}"), value);
        }
        if !extended.is_empty() {
            let mut before = Header::new_ustar();
            before.set_entry_type(EntryType::XHeader);
            before.set_path("PaxHeaders")?;
            before.set_mode(0o644);
            before.set_mtime(0);
            before.set_size(extended.len() as u64);
            before.set_cksum();
            self.out.write_all(before.as_bytes())?;
            self.out.write_all(&extended)?;
            self.pad(extended.len() as u64)?;
        }
        let fields = header
            .as_ustar_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let short = &path[..path.len().min(PLAIN_NAME)];
        fields.name[..short.len()].copy_from_slice(short);
        if let Some(link) = link {
            let short = &link[..link.len().min(PLAIN_NAME)];
            fields.linkname[..short.len()].copy_from_slice(short);
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }
}

/// Adds `LENGTH NAME=VALUE\n`, whose length counts itself.
fn record(into: &mut Vec<u8>, name: &str, value: &[u8]) {
    let rest = name.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    into.extend_from_slice(format!("{length} {name}=").as_bytes());
    into.extend_from_slice(value);
    into.push(b'\n');
}

/// The attributes that images keep, and whether a directory hides what lies below it.
fn attributes(file: &OwnedFd) -> io::Result<(Attributes, bool)> {
    let mut names = vec![0u8; MAX_XATTR];
    let length = match flistxattr(file, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let (mut kept, mut is_opaque) = (Vec::new(), false);
    for name in names[..length].split(|&byte| byte == 0) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let is_mark = name == "trusted.overlay.opaque";
        if !is_mark && !name.starts_with("user.") && name != "security.capability" {
            continue;
        }
        let mut value = vec![0u8; MAX_XATTR];
        let length = fgetxattr(file, name, &mut value)?;
        value.truncate(length);
        if is_mark {
            is_opaque = value == b"y";
        } else {
            kept.push((name.to_owned(), value));
        }
    }
    kept.sort();
    Ok((kept, is_opaque))
}
