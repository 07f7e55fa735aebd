//! The user that kernels run as, looked up in the sandbox's own databases.

use std::fs;
use std::io;

use crate::sys::Credentials;

/// A user of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Ids.
    pub credentials: Credentials,
}

/// Finds a user by name.
///
/// # Errors
/// A database can't be read or has no such user.
pub(crate) fn find(name: &str) -> io::Result<User> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let group = match fs::read_to_string("/etc/group") {
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    parse(name, &passwd, &group)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no user is named {name}")))
}

fn parse(name: &str, passwd: &str, group: &str) -> Option<User> {
    let fields: Vec<&str> = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 7 && fields[0] == name)?;
    let (uid, gid) = (fields[2].parse().ok()?, fields[3].parse().ok()?);
    let mut groups = vec![gid];
    for line in group.lines() {
        let mut parts = line.split(':').skip(2);
        let (Some(Ok(id)), Some(members)) = (parts.next().map(str::parse), parts.next()) else {
            continue;
        };
        if members.split(',').any(|member| member.trim() == name) && !groups.contains(&id) {
            groups.push(id);
        }
    }
    Some(User {
        name: name.to_owned(),
        home: fields[5].to_owned(),
        credentials: Credentials { uid, gid, groups },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_ids_home_and_groups() {
        let passwd = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/bash\n";
        let group = "user:x:1001:\nsudo:x:27:a,user\nbad\nx:y:z:user\n";
        let user = parse("user", passwd, group).unwrap();
        assert_eq!(user.home, "/home/user");
        assert_eq!(
            user.credentials,
            Credentials {
                uid: 1000,
                gid: 1001,
                groups: vec![1001, 27]
            }
        );
        assert_eq!(parse("use", passwd, group), None);
    }
}
