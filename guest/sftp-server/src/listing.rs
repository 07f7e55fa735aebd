//! Directories, read piece by piece.

use std::fs::{Metadata, ReadDir};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use russh_sftp::protocol::File;

use crate::attributes;

/// Entries of one answer.
const BATCH: usize = 128;

/// An open directory.
pub(crate) struct Listing {
    path: PathBuf,
    entries: ReadDir,
    is_started: bool,
}

impl Listing {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let entries = std::fs::read_dir(&path)?;
        Ok(Self {
            path,
            entries,
            is_started: false,
        })
    }

    /// The next entries; none at the end. What vanishes meanwhile is left out, and so are
    /// names that are no UTF-8, which the protocol's library can't carry.
    pub(crate) fn next_batch(&mut self) -> io::Result<Vec<File>> {
        let mut batch = Vec::new();
        if !self.is_started {
            self.is_started = true;
            for name in [".", ".."] {
                if let Ok(metadata) = std::fs::metadata(self.path.join(name)) {
                    batch.push(shown(name.to_owned(), &metadata));
                }
            }
        }
        while batch.len() < BATCH {
            let Some(entry) = self.entries.next() else {
                break;
            };
            let entry = entry?;
            if let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata()) {
                batch.push(shown(name, &metadata));
            }
        }
        Ok(batch)
    }
}

fn shown(name: String, metadata: &Metadata) -> File {
    let longname = long_name(&name, metadata);
    File {
        filename: name,
        longname,
        attrs: attributes::of(metadata),
    }
}

/// A path alone, without attributes.
pub(crate) fn bare(path: &Path) -> Option<File> {
    let name = path.to_str()?.to_owned();
    Some(File {
        longname: name.clone(),
        filename: name,
        attrs: russh_sftp::protocol::FileAttributes::empty(),
    })
}

/// The line that clients show for an entry, as of `ls -l`.
fn long_name(name: &str, metadata: &Metadata) -> String {
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        'd'
    } else if kind.is_symlink() {
        'l'
    } else if kind.is_fifo() {
        'p'
    } else if kind.is_socket() {
        's'
    } else if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        '-'
    };
    let mode = metadata.mode();
    let bits: String = (0..9)
        .map(|bit| {
            let letter = ['r', 'w', 'x'][bit % 3];
            if mode & (0o400 >> bit) == 0 {
                '-'
            } else {
                letter
            }
        })
        .collect();
    format!(
        "{kind}{bits} {:>4} {:<8} {:<8} {:>8} {} {name}",
        metadata.nlink(),
        metadata.uid(),
        metadata.gid(),
        metadata.size(),
        date(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)),
    )
}

/// Day in UTC as `Jan  2  2026`.
fn date(time: SystemTime) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
        / 86_400;
    // Days since 1 March of year 0, so that leap days are the last of their years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    let name = usize::try_from(month)
        .ok()
        .and_then(|month| MONTHS.get(month))
        .unwrap_or(&"");
    format!("{name} {day:>2}  {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "Jan  1  1970");
        assert_eq!(at(951_782_400), "Feb 29  2000");
        assert_eq!(at(951_868_800), "Mar  1  2000");
        assert_eq!(at(1_767_225_599), "Dec 31  2025");
    }

    #[test]
    fn a_directory_is_listed_once() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..200 {
            std::fs::write(dir.path().join(format!("f{index}")), "x").unwrap();
        }
        std::os::unix::fs::symlink("f0", dir.path().join("link")).unwrap();
        let mut listing = Listing::open(dir.path().to_owned()).unwrap();
        let mut all = Vec::new();
        loop {
            let batch = listing.next_batch().unwrap();
            if batch.is_empty() {
                break;
            }
            all.extend(batch);
        }
        assert_eq!(all.len(), 203);
        let link = all.iter().find(|file| file.filename == "link").unwrap();
        assert!(link.longname.starts_with("lrwx"), "{}", link.longname);
        assert!(link.attrs.is_symlink());
    }
}
