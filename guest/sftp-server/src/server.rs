//! The SFTP server: each request does what its system call does for this user, no more.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, FileAttributes, Handle, Name, OpenFlags, Packet, Status,
    StatusCode, Version,
};
use russh_sftp::server::{Config, Handler, StatusReply};
use rustix::fs::{CWD, RenameFlags};

use crate::attributes;
use crate::extended::{self, Reader};
use crate::listing::{Listing, bare};
use crate::stdio::Stdio;

/// Longest packet that is taken, and most data of one read.
const MAX_PACKET: u32 = 256 * 1024;
const MAX_DATA: u32 = MAX_PACKET - 1024;
/// Files and directories open at a time.
const MAX_HANDLES: usize = 1024;

/// Serves until standard input ends.
pub(crate) async fn serve() -> io::Result<()> {
    let (stdio, end) = Stdio::open();
    let config = Config {
        max_client_packet_len: MAX_PACKET,
    };
    russh_sftp::server::run_with_config(stdio, Server::default(), config).await;
    // Resolves with an error when the stream is dropped, which is its end.
    let _dropped = end.await;
    Ok(())
}

enum Open {
    File(File),
    Directory(Listing),
}

#[derive(Default)]
struct Server {
    open: HashMap<String, Open>,
    opened: u64,
}

/// Why a request is refused.
struct Refused(StatusReply);

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound => StatusCode::NoSuchFile,
            io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
            io::ErrorKind::UnexpectedEof => StatusCode::Eof,
            _ => StatusCode::Failure,
        };
        let text = error.to_string();
        // The number of the error says nothing to people.
        let text = text.split(" (os error").next().unwrap_or_default();
        Self(code.with_message(text))
    }
}

impl From<rustix::io::Errno> for Refused {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<StatusCode> for Refused {
    fn from(code: StatusCode) -> Self {
        Self(code.into())
    }
}

impl From<Refused> for StatusReply {
    fn from(refused: Refused) -> Self {
        refused.0
    }
}

type Answer<T> = Result<T, Refused>;

fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "Success".to_owned(),
        language_tag: "en".to_owned(),
    }
}

/// An empty path names the directory that the server was started in, the user's home.
fn path(text: &str) -> &Path {
    Path::new(if text.is_empty() { "." } else { text })
}

/// The absolute path without links. The last part need not exist.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (Some(parent), Some(Component::Normal(name))) =
                (path.parent(), path.components().next_back())
            else {
                return Err(error);
            };
            let parent = Path::new(".").join(parent).canonicalize()?;
            Ok(parent.join(name))
        }
        result => result,
    }
}

/// `~` and `~/…` as the user's home.
fn expanded(path: &Path) -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| ".".into(), PathBuf::from);
    match path.strip_prefix("~") {
        Ok(rest) if rest.as_os_str().is_empty() => home(),
        Ok(rest) => home().join(rest),
        Err(_) => path.to_owned(),
    }
}

impl Server {
    fn keep(&mut self, id: u32, open: Open) -> Answer<Handle> {
        if self.open.len() >= MAX_HANDLES {
            return Err(Refused(
                StatusCode::Failure.with_message("too many open files"),
            ));
        }
        self.opened += 1;
        let handle = self.opened.to_string();
        self.open.insert(handle.clone(), open);
        Ok(Handle { id, handle })
    }

    fn file(&self, handle: &str) -> Answer<&File> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(Refused(
                StatusCode::Failure.with_message("no such open file"),
            )),
        }
    }

    fn extend(&self, id: u32, request: &str, data: &[u8]) -> Answer<Packet> {
        let mut reader = Reader(data);
        let bad = || Refused::from(StatusCode::BadMessage);
        match request {
            "posix-rename@openssh.com" => {
                let (from, to) = (reader.path(), reader.path());
                std::fs::rename(from.ok_or_else(bad)?, to.ok_or_else(bad)?)?;
            }
            "hardlink@openssh.com" => {
                let (from, to) = (reader.path(), reader.path());
                std::fs::hard_link(from.ok_or_else(bad)?, to.ok_or_else(bad)?)?;
            }
            "fsync@openssh.com" => {
                let handle = reader.bytes().ok_or_else(bad)?;
                let handle = str::from_utf8(handle).map_err(|_| bad())?;
                self.file(handle)?.sync_all()?;
            }
            "statvfs@openssh.com" => {
                let data = extended::file_system(&reader.path().ok_or_else(bad)?)?;
                return Ok(Packet::ExtendedReply(ExtendedReply { id, data }));
            }
            "limits@openssh.com" => {
                let data = extended::limits(MAX_PACKET, MAX_DATA, MAX_HANDLES as u64);
                return Ok(Packet::ExtendedReply(ExtendedReply { id, data }));
            }
            "expand-path@openssh.com" => {
                let path = real_path(&expanded(&reader.path().ok_or_else(bad)?))?;
                return Ok(Packet::Name(one_name(id, &path)?));
            }
            _ => return Err(StatusCode::OpUnsupported.into()),
        }
        Ok(Packet::Status(done(id)))
    }
}

fn one_name(id: u32, path: &Path) -> Answer<Name> {
    let name = bare(path)
        .ok_or_else(|| Refused(StatusCode::Failure.with_message("the name is not UTF-8")))?;
    Ok(Name {
        id,
        files: vec![name],
    })
}

impl Handler for Server {
    type Error = Refused;

    fn unimplemented(&self) -> Refused {
        StatusCode::OpUnsupported.into()
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Answer<Version> {
        Ok(Version {
            extensions: extended::announced(),
            ..Version::new()
        })
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        flags: OpenFlags,
        attrs: FileAttributes,
    ) -> Answer<Handle> {
        let file = OpenOptions::from(flags)
            .mode(attributes::mode(&attrs, 0o666))
            .open(path(&filename))?;
        self.keep(id, Open::File(file))
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        match self.open.remove(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(Refused(
                StatusCode::Failure.with_message("no such open file"),
            )),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let file = self.file(&handle)?;
        let mut data = vec![0; len.min(MAX_DATA) as usize];
        let read = file.read_at(&mut data, offset)?;
        if read == 0 && len > 0 {
            return Err(StatusCode::Eof.into());
        }
        data.truncate(read);
        Ok(Data { id, data })
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Answer<Status> {
        self.file(&handle)?.write_all_at(&data, offset)?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, name: String) -> Answer<Attrs> {
        let attrs = attributes::of(&std::fs::symlink_metadata(path(&name))?);
        Ok(Attrs { id, attrs })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        let attrs = attributes::of(&self.file(&handle)?.metadata()?);
        Ok(Attrs { id, attrs })
    }

    async fn stat(&mut self, id: u32, name: String) -> Answer<Attrs> {
        let attrs = attributes::of(&std::fs::metadata(path(&name))?);
        Ok(Attrs { id, attrs })
    }

    async fn setstat(&mut self, id: u32, name: String, attrs: FileAttributes) -> Answer<Status> {
        attributes::change(path(&name), &attrs)?;
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        attributes::change_open(self.file(&handle)?, &attrs)?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, name: String) -> Answer<Handle> {
        let listing = Listing::open(path(&name).to_owned())?;
        self.keep(id, Open::Directory(listing))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let Some(Open::Directory(listing)) = self.open.get_mut(&handle) else {
            return Err(Refused(
                StatusCode::Failure.with_message("no such open directory"),
            ));
        };
        let files = listing.next_batch()?;
        if files.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        Ok(Name { id, files })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Answer<Status> {
        std::fs::remove_file(path(&filename))?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, name: String, attrs: FileAttributes) -> Answer<Status> {
        std::fs::DirBuilder::new()
            .mode(attributes::mode(&attrs, 0o777))
            .create(path(&name))?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, name: String) -> Answer<Status> {
        std::fs::remove_dir(path(&name))?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, name: String) -> Answer<Name> {
        one_name(id, &real_path(path(&name))?)
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Answer<Status> {
        // The protocol's own rename never replaces.
        let (from, to) = (path(&oldpath), path(&newpath));
        rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, name: String) -> Answer<Name> {
        one_name(id, &std::fs::read_link(path(&name))?)
    }

    /// The target comes first: so OpenSSH has it, against the protocol's draft, and with it
    /// every client.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Answer<Status> {
        std::os::unix::fs::symlink(target, path(&link))?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Answer<Packet> {
        self.extend(id, &request, &data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_path_needs_no_last_part() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&root, root.join("link")).unwrap();
        assert_eq!(real_path(&root.join("link/new")).unwrap(), root.join("new"));
        assert!(real_path(&root.join("none/new")).is_err());
        assert!(real_path(&root.join("none/..")).is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_plain_rename_does_not_replace() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("a"), "a").unwrap();
        std::fs::write(at("b"), "b").unwrap();
        let mut server = Server::default();
        assert!(server.rename(1, at("a"), at("b")).await.is_err());
        assert_eq!(std::fs::read_to_string(at("b")).unwrap(), "b");
        assert!(server.rename(2, at("a"), at("c")).await.is_ok());
        assert_eq!(std::fs::read_to_string(at("c")).unwrap(), "a");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn handles_are_limited_and_given_back() {
        let mut server = Server::default();
        for _ in 0..MAX_HANDLES {
            assert!(server.opendir(1, "/".to_owned()).await.is_ok());
        }
        assert!(server.opendir(1, "/".to_owned()).await.is_err());
        assert!(server.close(1, "1".to_owned()).await.is_ok());
        assert!(server.close(1, "1".to_owned()).await.is_err());
        assert!(server.opendir(1, "/".to_owned()).await.is_ok());
    }
}
