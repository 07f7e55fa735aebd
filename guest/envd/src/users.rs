//! The guest's users and groups, read from `/etc/passwd` and `/etc/group` at each use: a
//! static program can't load the name service's modules, and the files change under us.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Longest database that is read, in bytes.
const MAX_DATABASE: u64 = 8 << 20;

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// A snapshot of both databases.
#[derive(Debug, Default)]
pub struct UserDb {
    passwd: String,
    group: String,
}

impl UserDb {
    /// Reads the databases. A missing one is empty.
    ///
    /// # Errors
    /// One exists but can't be read.
    pub fn load() -> io::Result<Self> {
        Ok(Self {
            passwd: read(Path::new("/etc/passwd"))?,
            group: read(Path::new("/etc/group"))?,
        })
    }

    /// Makes a snapshot from the texts of both files.
    #[must_use]
    pub fn from_texts(passwd: &str, group: &str) -> Self {
        Self {
            passwd: passwd.to_owned(),
            group: group.to_owned(),
        }
    }

    /// Finds a user by name. Numbers are names too.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<User> {
        if name.is_empty() {
            return None;
        }
        self.passwd
            .lines()
            .filter_map(parse_user)
            .find(|user| user.name == name)
    }

    /// The ids of all groups that a user belongs to, the primary one first.
    #[must_use]
    pub fn groups_of(&self, user: &User) -> Vec<u32> {
        let mut ids = vec![user.gid];
        for line in self.group.lines() {
            let mut fields = line.split(':');
            let (Some(id), Some(members)) = (fields.nth(2), fields.next()) else {
                continue;
            };
            if !members.split(',').any(|member| member.trim() == user.name) {
                continue;
            }
            if let Ok(id) = id.parse()
                && !ids.contains(&id)
            {
                ids.push(id);
            }
        }
        ids
    }

    /// The name of a user id, or the number as text.
    #[must_use]
    pub fn user_name(&self, uid: u32) -> String {
        name_of(&self.passwd, uid)
    }

    /// The name of a group id, or the number as text.
    #[must_use]
    pub fn group_name(&self, gid: u32) -> String {
        name_of(&self.group, gid)
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    file.take(MAX_DATABASE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?;
    Some(User {
        name: name.to_owned(),
        uid,
        gid,
        home: if home.is_empty() { "/" } else { home }.to_owned(),
    })
}

/// Both files have the name first and the id third.
fn name_of(database: &str, id: u32) -> String {
    for line in database.lines() {
        let mut fields = line.split(':');
        let Some(name) = fields.next() else { continue };
        if fields.nth(1).and_then(|text| text.parse().ok()) == Some(id) && !name.is_empty() {
            return name.to_owned();
        }
    }
    id.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn db() -> UserDb {
        UserDb::from_texts(
            "root:x:0:0:root:/root:/bin/bash\nbroken\nuser:x:1000:1000::/home/user:/bin/sh\n",
            "root:x:0:\nsudo:x:27:other,user\nuser:x:1000:\ndocker:x:999:user\n",
        )
    }

    #[test]
    fn users_are_found_by_name_only() {
        let user = db().find("user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (1000, 1000, "/home/user")
        );
        assert_eq!(db().find("1000"), None);
        assert_eq!(db().find(""), None);
        assert_eq!(db().find("broken"), None);
    }

    #[test]
    fn groups_start_with_the_primary_one() {
        let db = db();
        let user = db.find("user").unwrap();
        assert_eq!(db.groups_of(&user), [1000, 27, 999]);
    }

    #[test]
    fn ids_without_a_name_are_numbers() {
        assert_eq!(db().user_name(0), "root");
        assert_eq!(db().group_name(27), "sudo");
        assert_eq!(db().user_name(4242), "4242");
    }
}
