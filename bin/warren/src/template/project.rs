//! The configuration file of a template's project, `e2b.toml`.

use std::path::Path;
use std::{fs, io};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What the file says. Older files have other names and a table for the commands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Project {
    #[serde(alias = "id", skip_serializing_if = "Option::is_none")]
    pub(crate) template_id: Option<String>,
    #[serde(alias = "name", skip_serializing_if = "Option::is_none")]
    pub(crate) template_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start_cmd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ready_cmd: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_mb: Option<u32>,
    #[serde(default, skip_serializing)]
    build: OldBuild,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct OldBuild {
    cmd: Option<String>,
    ready_cmd: Option<String>,
}

impl Project {
    /// What the server knows the template by.
    pub(crate) fn reference(&self) -> Option<String> {
        self.template_name
            .clone()
            .or_else(|| self.template_id.clone())
    }
}

/// Reads the text of such a file.
pub(crate) fn parse(text: &str) -> Result<Project, toml::de::Error> {
    let mut project: Project = toml::from_str(text)?;
    let old = std::mem::take(&mut project.build);
    project.start_cmd = project.start_cmd.or(old.cmd);
    project.ready_cmd = project.ready_cmd.or(old.ready_cmd);
    Ok(project)
}

/// Reads the file; `None` if there is none.
pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Project>> {
    match fs::read_to_string(path) {
        Ok(text) => {
            let project = parse(&text).with_context(|| format!("read {}", path.display()))?;
            Ok(Some(project))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Writes the file anew.
pub(super) fn write(path: &Path, project: &Project) -> anyhow::Result<()> {
    let text = toml::to_string(project)?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Removes the file if it is there.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_the_flat_one_is_written() {
        let old =
            "id = \"abc\"\nteam_id = \"t\"\n[build]\ncmd = \"a \\\"b\\\"\"\nready_cmd = \"r\"\n";
        let project = parse(old).unwrap();
        assert_eq!(project.reference().as_deref(), Some("abc"));
        assert_eq!(project.start_cmd.as_deref(), Some("a \"b\""));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e2b.toml");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &project).unwrap();
        assert!(!fs::read_to_string(&path).unwrap().contains("[build]"));
        assert_eq!(read(&path).unwrap(), Some(project));
        fs::write(&path, "cpu_count = \"two\"").unwrap();
        assert!(format!("{:#}", read(&path).unwrap_err()).contains("e2b.toml"));
        remove(&path).unwrap();
        remove(&path).unwrap();
    }
}
