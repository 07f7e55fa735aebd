//! Well-known image names, mapped to roots made of Debian packages: what there is without a
//! registry.

use crate::base::Recipe;

/// What every root has beside the essential packages, whatever the image would have.
const COMMON: &[&str] = &[
    "ca-certificates",
    "curl",
    "fuse3",
    "git",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "less",
    "nftables",
    "procps",
    "socat",
    "sudo",
];
const PYTHON: &[&str] = &[
    "python-is-python3",
    "python3",
    "python3-pip",
    "python3-venv",
];
const PYTHON_FULL: &[&str] = &["build-essential", "pkg-config", "python3-dev"];
const NODE: &[&str] = &["nodejs", "npm", "yarnpkg"];
const NODE_FULL: &[&str] = &["build-essential", "pkg-config", "python3"];
/// The two suites: their names and numbers, their Python and their Node.js.
const SUITES: [Suite; 2] = [
    Suite {
        name: "trixie",
        debian: &["trixie", "13", "stable", "latest"],
        ubuntu: &[
            "latest", "24.04", "noble", "24.10", "25.04", "25.10", "26.04",
        ],
        python: "3.13",
        node: "20",
    },
    Suite {
        name: "bookworm",
        debian: &["bookworm", "12", "oldstable"],
        ubuntu: &["22.04", "jammy", "20.04", "focal"],
        python: "3.11",
        node: "18",
    },
];

#[derive(Debug)]
struct Suite {
    name: &'static str,
    debian: &'static [&'static str],
    ubuntu: &'static [&'static str],
    python: &'static str,
    node: &'static str,
}

/// A root that packages can make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) recipe: Recipe,
    /// What differs from what the name promises.
    pub(super) warning: Option<String>,
}

/// The root that stands for an image name; `None` for a name that packages can't stand for,
/// and a text for a known name with a version that does not exist here.
pub(super) fn known(reference: &str, mirror: &str) -> Option<Result<Root, String>> {
    let name = [
        "docker.io/library/",
        "docker.io/",
        "index.docker.io/",
        "library/",
    ]
    .iter()
    .find_map(|prefix| reference.strip_prefix(prefix))
    .unwrap_or(reference);
    if name.contains('@') {
        return None;
    }
    let (name, tag) = name.split_once(':').unwrap_or((name, "latest"));
    let root = |suite: &str, packages: Vec<&str>, warning: Option<String>| Root {
        recipe: Recipe {
            suite: suite.to_owned(),
            mirror: mirror.to_owned(),
            packages: packages.into_iter().map(str::to_owned).collect(),
        },
        warning,
    };
    let with = |lists: &[&'static [&'static str]]| {
        let mut all: Vec<&str> = COMMON.to_vec();
        lists.iter().for_each(|list| all.extend(*list));
        all.sort_unstable();
        all.dedup();
        all
    };
    match name {
        "e2bdev/base" => Some(Ok(Root {
            recipe: Recipe {
                mirror: mirror.to_owned(),
                ..Recipe::default()
            },
            warning: None,
        })),
        "debian" => {
            let plain = tag.strip_suffix("-slim").unwrap_or(tag);
            let plain = plain.split('.').next().unwrap_or(plain);
            let suite = SUITES.iter().find(|suite| suite.debian.contains(&plain));
            Some(match suite {
                Some(suite) => Ok(root(suite.name, with(&[]), None)),
                None => Err(absent(
                    reference,
                    "debian:trixie (stable, 13) and debian:bookworm (12)",
                )),
            })
        }
        "ubuntu" => {
            let suite = SUITES.iter().find(|suite| suite.ubuntu.contains(&tag));
            Some(match suite {
                Some(suite) => {
                    let warning = format!(
                        "'{reference}' is not available without a registry: Debian {} is used",
                        suite.name
                    );
                    Ok(root(suite.name, with(&[]), Some(warning)))
                }
                None => Err(absent(
                    reference,
                    "ubuntu:24.04 and ubuntu:22.04, as Debian of their time",
                )),
            })
        }
        "python" => Some(language(tag, |suite| suite.python).map_or_else(
            || {
                Err(absent(
                    reference,
                    "python:3, python:3.13 and python:3.11, with -slim too",
                ))
            },
            |(suite, slim)| {
                let full: &[&str] = if slim { &[] } else { PYTHON_FULL };
                Ok(root(suite.name, with(&[PYTHON, full]), None))
            },
        )),
        "node" => Some(language(tag, |suite| suite.node).map_or_else(
            || Err(absent(reference, "node:20 and node:18, with -slim too")),
            |(suite, slim)| {
                let full: &[&str] = if slim { &[] } else { NODE_FULL };
                let vague = matches!(tag.split('-').next(), Some("lts" | "latest" | "current"));
                let warning = vague.then(|| {
                    format!(
                        "'{reference}' without a registry is Node.js {} of Debian",
                        suite.node
                    )
                });
                Ok(root(suite.name, with(&[NODE, full]), warning))
            },
        )),
        _ => None,
    }
}

fn absent(reference: &str, there: &str) -> String {
    format!(
        "image '{reference}' not found: the image or tag does not exist in the registry \
         (no registry is configured for it, and packages make {there})"
    )
}

/// The suite that a language's tag asks for, and whether it is to be slim.
fn language(tag: &str, version: impl Fn(&Suite) -> &str) -> Option<(&'static Suite, bool)> {
    let mut parts = tag.split('-');
    let wanted = parts.next()?;
    let (mut slim, mut suite) = (false, None);
    for part in parts {
        match part {
            "slim" => slim = true,
            name => suite = Some(SUITES.iter().find(|suite| suite.name == name)?),
        }
    }
    let vague = matches!(wanted, "latest" | "lts" | "current" | "3");
    let fits = |suite: &&&Suite| {
        let have = version(suite);
        vague
            || wanted == have
            || wanted
                .strip_prefix(have)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    if let Some(suite) = SUITES.iter().find(|suite| wanted == suite.name) {
        return Some((suite, slim));
    }
    match suite {
        Some(suite) => Some(suite).filter(|suite| fits(&suite)),
        None => SUITES.iter().find(|suite| fits(&suite)),
    }
    .map(|suite| (suite, slim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suite(reference: &str) -> Option<Option<String>> {
        let known = known(reference, "http://mirror")?;
        Some(known.ok().map(|root| root.recipe.suite))
    }

    #[test]
    fn names_map_to_the_suite_that_has_the_version() {
        for (reference, expected) in [
            ("debian", "trixie"),
            ("debian:stable", "trixie"),
            ("debian:12-slim", "bookworm"),
            ("docker.io/library/debian:bookworm", "bookworm"),
            ("python:3", "trixie"),
            ("python:3.11.6", "bookworm"),
            ("python:3.13-slim-trixie", "trixie"),
            ("python:3-bookworm", "bookworm"),
            ("python:bookworm", "bookworm"),
            ("node:lts", "trixie"),
            ("node:18.20-slim", "bookworm"),
            ("ubuntu:22.04", "bookworm"),
            ("e2bdev/base", "bookworm"),
        ] {
            assert_eq!(
                suite(reference),
                Some(Some(expected.to_owned())),
                "{reference}"
            );
        }
        for absent in [
            "python:3.12",
            "python:3.13-bookworm",
            "python:3-alpine",
            "node:24",
            "debian:sid",
            "ubuntu:18.04",
            "python:2",
        ] {
            assert_eq!(suite(absent), Some(None), "{absent}");
        }
        for other in [
            "alpine",
            "localhost:5000/debian",
            "ghcr.io/x/python:3",
            "debian@sha256:0",
        ] {
            assert_eq!(suite(other), None, "{other}");
        }
    }

    #[test]
    fn from_base_image_is_the_base_template() {
        let root = known("e2bdev/base", crate::base::DEFAULT_MIRROR)
            .unwrap()
            .unwrap();
        assert_eq!(root.recipe.digest(), Recipe::default().digest());
    }

    #[test]
    fn slim_ones_have_no_compiler_and_warnings_are_given() {
        let root = |reference| known(reference, "m").unwrap().unwrap();
        let compiler = "build-essential".to_owned();
        assert!(root("python:3").recipe.packages.contains(&compiler));
        assert!(!root("python:3-slim").recipe.packages.contains(&compiler));
        assert!(root("ubuntu:24.04").warning.is_some());
        assert!(root("debian:12").warning.is_none());
    }
}
