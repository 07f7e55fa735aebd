//! Terminals.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use warren_connect::process::pty::Size;

use crate::users::User;

/// The agent's end of a terminal.
#[derive(Debug)]
pub(crate) struct Master(AsyncFd<OwnedFd>);

/// Opens a terminal of a size. The second value is the end for the process.
pub(crate) fn open(size: Size, user: &User) -> io::Result<(Master, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    rustix::termios::tcsetwinsize(&master, winsize(size))?;
    // Programs such as screen open their terminal by name. Not every devpts permits the
    // change, and most programs do without.
    let _ = rustix::fs::fchown(&slave, Some(Uid::from_raw(user.uid)), None::<Gid>);
    let _ = rustix::fs::fchmod(&slave, Mode::RUSR | Mode::WUSR | Mode::WGRP);
    let status = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, status | OFlags::NONBLOCK)?;
    Ok((Master(crate::sys::async_fd(master)?), slave))
}

impl Master {
    /// Waits until [`Master::try_read`] has something.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0
            .readable()
            .await
            .map(|mut guard| guard.retain_ready())
    }

    /// Reads without waiting; 0 when the process has closed all its ends.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut *buffer)?);
        end_of_output(self.0.try_io(Interest::READABLE, read))
    }

    /// Writes everything.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Changes the size; the foreground processes learn it by signal.
    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(
            self.0.get_ref().as_fd(),
            winsize(size),
        )?)
    }
}

/// The kernel reports a terminal without processes as an I/O error.
fn end_of_output(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(0),
        other => other,
    }
}

fn winsize(size: Size) -> Winsize {
    let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    Winsize {
        ws_row: cells(size.rows),
        ws_col: cells(size.cols),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
