//! Steps that are commands: packages, directories, repositories.

use super::recipe::Template;
use crate::shell::{join_words, quote};

/// Which commit of a repository is cloned, and where to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloneOptions {
    /// Directory; that which git chooses unless set.
    pub path: Option<String>,
    /// Branch; that which the repository names unless set.
    pub branch: Option<String>,
    /// How many commits; all unless set.
    pub depth: Option<u32>,
}

impl Template {
    /// Installs packages of the distribution, without those they only recommend, after a
    /// fresh look at the lists.
    #[must_use]
    pub fn apt_install<P: AsRef<str>>(self, packages: impl IntoIterator<Item = P>) -> Self {
        let packages = join_words(packages);
        self.run_as(
            "root",
            format!(
                "apt-get update && DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
                 apt-get install -y --no-install-recommends {packages}"
            ),
        )
    }

    /// Installs Python packages for all users, such as `requests` or `numpy>=2`; an option
    /// and its value are two words.
    #[must_use]
    pub fn pip_install<P: AsRef<str>>(self, packages: impl IntoIterator<Item = P>) -> Self {
        self.run_as("root", format!("pip install {}", join_words(packages)))
    }

    /// Installs packages of npm for all users.
    #[must_use]
    pub fn npm_install<P: AsRef<str>>(self, packages: impl IntoIterator<Item = P>) -> Self {
        self.run_as("root", format!("npm install -g {}", join_words(packages)))
    }

    /// Clones a repository.
    #[must_use]
    pub fn git_clone(self, url: &str, options: &CloneOptions) -> Self {
        let mut command = format!("git clone {}", quote(url));
        if let Some(branch) = &options.branch {
            command.push_str(&format!(" --branch {} --single-branch", quote(branch)));
        }
        if let Some(depth) = options.depth {
            command.push_str(&format!(" --depth {depth}"));
        }
        if let Some(path) = &options.path {
            command.push_str(&format!(" {}", quote(path)));
        }
        self.run(command)
    }

    /// Makes directories and those above them.
    #[must_use]
    pub fn make_dirs<P: AsRef<str>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        self.run(format!("mkdir -p {}", join_words(paths)))
    }

    /// Makes a symbolic link, in place of what is there.
    #[must_use]
    pub fn symlink(self, target: &str, link: &str) -> Self {
        self.run(format!("ln -sf {}", join_words([target, link])))
    }

    /// Renames an entry, over what is there.
    #[must_use]
    pub fn rename(self, from: &str, to: &str) -> Self {
        self.run(format!("mv -f {}", join_words([from, to])))
    }

    /// Removes entries with all they contain; those that are not there are no error.
    #[must_use]
    pub fn remove<P: AsRef<str>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        self.run(format!("rm -rf {}", join_words(paths)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::recipe::Step;
    use super::*;

    #[test]
    fn words_of_callers_stay_words() {
        let options = CloneOptions {
            path: Some("/srv/it's".to_owned()),
            branch: Some("a b".to_owned()),
            depth: Some(1),
        };
        let template = Template::from_template("base")
            .apt_install(["jq", "a; reboot"])
            .pip_install(["numpy>=2"])
            .npm_install(["left-pad"])
            .git_clone("https://h/r", &options)
            .make_dirs(["/a", "/b c"])
            .symlink("/a", "/l")
            .rename("/x", "/y")
            .remove(["/$HOME"]);
        let commands: Vec<(String, Option<String>)> = template
            .steps
            .into_iter()
            .map(|(step, _)| match step {
                Step::Run { command, user } => (command, user),
                other => panic!("{other:?}"),
            })
            .collect();
        let root = || Some("root".to_owned());
        assert!(commands[0].0.ends_with("recommends jq 'a; reboot'"));
        assert_eq!(commands[0].1, root());
        let rest: Vec<&str> = commands[1..].iter().map(|one| one.0.as_str()).collect();
        assert_eq!(
            rest,
            [
                "pip install 'numpy>=2'",
                "npm install -g left-pad",
                r#"git clone https://h/r --branch 'a b' --single-branch --depth 1 '/srv/it'"'"'s'"#,
                "mkdir -p /a '/b c'",
                "ln -sf /a /l",
                "mv -f /x /y",
                "rm -rf '/$HOME'",
            ]
        );
        assert_eq!((&commands[2].1, &commands[3].1), (&root(), &None));
    }
}
