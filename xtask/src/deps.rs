//! The fences between crates: which may use which. What the table does not say is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::run::{metadata, say};

/// Each package with the packages of this workspace that it may use. Tests may use more.
const TABLE: &[(&str, &[&str])] = &[
    ("warren-types", &[]),
    ("warren-connect", &[]),
    ("warren-service", &[]),
    ("warren-sys", &[]),
    ("warren-address", &["warren-service"]),
    ("warren-wire", &["warren-types"]),
    (
        "warren-volume",
        &["warren-service", "warren-sys", "warren-types"],
    ),
    ("warren-webhook", &["warren-service"]),
    ("warren-store", &["warren-types", "warren-service"]),
    ("warren-cluster", &["warren-types", "warren-service"]),
    (
        "warren-template",
        &[
            "warren-cluster",
            "warren-connect",
            "warren-service",
            "warren-types",
        ],
    ),
    ("warren-proxy", &["warren-types", "warren-service"]),
    ("warren-egress", &["warren-types", "warren-service"]),
    (
        "warren-ssh",
        &["warren-connect", "warren-service", "warren-types"],
    ),
    ("warren-runtime", &["warren-types", "warren-sys"]),
    (
        "warren-node",
        &[
            "warren-cluster",
            "warren-connect",
            "warren-egress",
            "warren-runtime",
            "warren-service",
            "warren-types",
            "warren-volume",
        ],
    ),
    (
        "warren-control",
        &[
            "warren-cluster",
            "warren-service",
            "warren-store",
            "warren-template",
            "warren-types",
            "warren-volume",
            "warren-webhook",
            "warren-wire",
        ],
    ),
    (
        "warren-api",
        &[
            "warren-control",
            "warren-service",
            "warren-types",
            "warren-wire",
        ],
    ),
    (
        "warren-dashboard",
        &["warren-control", "warren-service", "warren-types"],
    ),
    (
        "warren-client",
        &["warren-connect", "warren-types", "warren-wire"],
    ),
    ("warren-mcp", &["warren-client", "warren-service"]),
    (
        "warren-envd",
        &["warren-connect", "warren-service", "warren-types"],
    ),
    ("warren-interpreter", &["warren-service"]),
    ("warren-mcp-gateway", &["warren-service"]),
    ("warren-sftp-server", &[]),
    (
        "warren",
        &[
            "warren-address",
            "warren-api",
            "warren-client",
            "warren-cluster",
            "warren-control",
            "warren-dashboard",
            "warren-egress",
            "warren-mcp",
            "warren-node",
            "warren-proxy",
            "warren-runtime",
            "warren-service",
            "warren-ssh",
            "warren-store",
            "warren-template",
            "warren-types",
            "warren-volume",
            "warren-webhook",
            "warren-wire",
        ],
    ),
    ("warren-bench", &["warren-client", "warren-types"]),
    ("xtask", &["warren-runtime", "warren-template"]),
];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `null` for an ordinary one.
    kind: Option<String>,
    /// Set for those of this workspace.
    path: Option<PathBuf>,
}

/// Compares the workspace with the table.
pub(crate) fn check() -> Result<()> {
    let metadata: Metadata = metadata()?;
    let mut faults = violations(&metadata.packages);
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)
            .with_context(|| format!("read {}", package.manifest_path.display()))?;
        if !inherits_lints(&manifest) {
            faults.push(format!(
                "{} does not inherit the workspace's lints",
                package.name
            ));
        }
    }
    if faults.is_empty() {
        say(&format!(
            "{} packages keep to the table",
            metadata.packages.len()
        ));
        return Ok(());
    }
    bail!(
        "{}\nhint: change the code, or the table in xtask/src/deps.rs together with ARCHITECTURE.md",
        faults.join("\n")
    );
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .split_once("[lints]")
        .is_some_and(|(_, rest)| rest.trim_start().starts_with("workspace = true"))
}

fn violations(packages: &[Package]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == package.name) else {
            faults.push(format!("{} is not in the table", package.name));
            continue;
        };
        let used: BTreeSet<&str> = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.path.is_some())
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name.as_str())
            .collect();
        for name in used {
            if !allowed.contains(&name) {
                faults.push(format!("{} must not use {name}", package.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[(&str, Option<&str>)]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: PathBuf::new(),
            dependencies: uses
                .iter()
                .map(|(name, kind)| Dependency {
                    name: (*name).to_owned(),
                    kind: kind.map(str::to_owned),
                    path: name.starts_with("warren").then(PathBuf::new),
                })
                .collect(),
        }
    }

    #[test]
    fn what_the_table_does_not_say_is_refused() {
        let packages = [
            package(
                "warren-proxy",
                &[
                    ("warren-types", None),
                    ("warren-store", None),
                    ("warren-node", Some("dev")),
                    ("bytes", None),
                ],
            ),
            package("warren-api", &[("warren-runtime", Some("build"))]),
            package("warren-utils", &[]),
        ];
        assert_eq!(
            violations(&packages),
            [
                "warren-proxy must not use warren-store",
                "warren-api must not use warren-runtime",
                "warren-utils is not in the table",
            ]
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Each package only uses packages that stand above it.
        for (index, (name, allowed)) in TABLE.iter().enumerate() {
            for used in *allowed {
                let at = TABLE.iter().position(|(other, _)| other == used);
                assert!(at.is_some_and(|at| at < index), "{name} uses {used}");
            }
        }
    }

    #[test]
    fn lints_are_inherited_or_missed() {
        assert!(inherits_lints("[package]\n\n[lints]\nworkspace = true\n"));
        assert!(!inherits_lints("[package]\nname = \"x\"\n"));
    }
}
