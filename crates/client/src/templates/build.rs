//! Builds of templates.

use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use warren_types::LogLevel;

use super::pack;
use super::recipe::{Source, Step, Template};
use crate::client::Client;
use crate::error::Error;
use crate::http::{call, json};

/// How often a build is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// Lines of one answer.
const LINES: usize = 100;
/// Longest time of one upload.
const UPLOAD: Duration = Duration::from_secs(3600);

/// What is asked of a build beside its steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Name of the template, with optional tag.
    pub name: String,
    /// Further tags.
    pub tags: Vec<String>,
    /// CPUs of its sandboxes; 1 or an even number.
    pub cpu_count: Option<u32>,
    /// Memory of its sandboxes in MiB; even.
    pub memory_mib: Option<u32>,
    /// Disk that its sandboxes have free, in MiB.
    pub min_free_disk_mib: Option<u32>,
    /// Run all steps though the server has their layers.
    pub skip_cache: bool,
}

impl BuildOptions {
    /// The server's choice but for the name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }
}

/// A line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BuildLog {
    /// When it was written.
    pub timestamp: Timestamp,
    /// Its severity.
    pub level: LogLevel,
    /// Its text.
    pub message: String,
    /// Which step wrote it.
    #[serde(default)]
    pub step: Option<String>,
}

/// A build that has been requested.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Build {
    /// The template's id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Its own id.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Names of the template with namespace.
    #[serde(default)]
    pub names: Vec<String>,
    /// Tags that it gets.
    #[serde(default)]
    pub tags: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RequestBody<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tags: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_count: Option<u32>,
    #[serde(rename = "memoryMB", skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_free_disk_mb: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StartBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from_image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_template: Option<&'a str>,
    steps: Vec<StepBody>,
    force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_cmd: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_cmd: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StepBody {
    #[serde(rename = "type")]
    kind: &'static str,
    args: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files_hash: Option<String>,
    force: bool,
}

#[derive(Deserialize)]
struct FilesAnswer {
    present: bool,
    url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    status: String,
    #[serde(default)]
    log_entries: Vec<BuildLog>,
    reason: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
    #[serde(default)]
    step: Option<String>,
}

impl Client {
    /// Builds a template and returns once sandboxes can be made from it. `log` is given the
    /// lines of the build as they come.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Build`] when a step fails.
    pub async fn build(
        &self,
        template: &Template,
        options: &BuildOptions,
        log: impl FnMut(&BuildLog),
    ) -> Result<Build, Error> {
        const OPERATION: &str = "request a build";
        let body = RequestBody {
            name: &options.name,
            tags: &options.tags,
            cpu_count: options.cpu_count,
            memory_mb: options.memory_mib,
            min_free_disk_mb: options.min_free_disk_mib,
        };
        let requested = call(OPERATION, self.post(&["v3", "templates"], &body)).await?;
        let build: Build = json(OPERATION, requested).await?;
        let steps = self.steps(template, &build).await?;
        let (image, parent) = match &template.source {
            Source::Image(name) => (Some(name.as_str()), None),
            Source::Template(name) => (None, Some(name.as_str())),
        };
        let body = StartBody {
            from_image: image,
            from_template: parent,
            steps,
            force: template.force || options.skip_cache,
            start_cmd: template.start.as_deref(),
            ready_cmd: template.ready.as_deref(),
        };
        let path = [
            "v2",
            "templates",
            &build.template_id,
            "builds",
            &build.build_id,
        ];
        call("start a build", self.post(&path, &body)).await?;
        self.follow(&build, log).await?;
        Ok(build)
    }

    /// The steps as the server wants them; files are uploaded on the way.
    async fn steps(&self, template: &Template, build: &Build) -> Result<Vec<StepBody>, Error> {
        let mut out = Vec::new();
        for (step, force) in &template.steps {
            let mut files_hash = None;
            let (kind, args) = match step {
                Step::Run { command, user } => {
                    let mut args = vec![command.clone()];
                    args.extend(user.clone());
                    ("RUN", args)
                }
                Step::Env(pairs) => {
                    let words = pairs.iter().flat_map(|(name, value)| [name, value]);
                    ("ENV", words.cloned().collect())
                }
                Step::Workdir(dir) => ("WORKDIR", vec![dir.clone()]),
                Step::User(name) => ("USER", vec![name.clone()]),
                Step::Copy {
                    source,
                    target,
                    options,
                } => {
                    let hash = self
                        .upload(template, build, source, target, options.force_upload)
                        .await?;
                    files_hash = Some(hash);
                    let mode = options.mode.map(|mode| format!("{mode:04o}"));
                    let args = vec![
                        source.clone(),
                        target.clone(),
                        options.owner.clone().unwrap_or_default(),
                        mode.unwrap_or_default(),
                    ];
                    ("COPY", args)
                }
            };
            let upload_forces = matches!(step, Step::Copy { options, .. } if options.force_upload);
            out.push(StepBody {
                kind,
                args,
                files_hash,
                force: *force || upload_forces,
            });
        }
        Ok(out)
    }

    /// Uploads the files of a copy unless the server has them; returns their hash.
    async fn upload(
        &self,
        template: &Template,
        build: &Build,
        source: &str,
        target: &str,
        force: bool,
    ) -> Result<String, Error> {
        const OPERATION: &str = "upload files";
        let blocking = |source: tokio::task::JoinError| Error::File {
            path: template.context.clone(),
            source: source.into(),
        };
        let (context, pattern, to) = (
            template.context.clone(),
            source.to_owned(),
            target.to_owned(),
        );
        let packed = tokio::task::spawn_blocking(move || pack::choose(&context, &pattern, &to))
            .await
            .map_err(blocking)??;
        let hash = packed.hash.clone();
        let path = ["templates", &build.template_id, "files", &hash];
        let answer = call(OPERATION, self.request(Method::GET, &path)).await?;
        let answer: FilesAnswer = json(OPERATION, answer).await?;
        let Some(url) = answer.url.filter(|_| force || !answer.present) else {
            return Ok(hash);
        };
        let (file, length) = tokio::task::spawn_blocking(move || packed.archive())
            .await
            .map_err(blocking)??;
        let stream = ReaderStream::new(tokio::fs::File::from_std(file));
        let request = self
            .shared
            .http
            .put(url)
            .timeout(UPLOAD)
            .header(http::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(stream));
        call(OPERATION, request).await?;
        Ok(hash)
    }

    /// Reads the log of a build to its end.
    async fn follow(&self, build: &Build, mut log: impl FnMut(&BuildLog)) -> Result<(), Error> {
        const OPERATION: &str = "follow a build";
        let path = [
            "templates",
            &build.template_id,
            "builds",
            &build.build_id,
            "status",
        ];
        let mut offset = 0;
        loop {
            let request = self
                .request(Method::GET, &path)
                .query(&[("logsOffset", offset), ("limit", LINES)]);
            let status: Status = json(OPERATION, call(OPERATION, request).await?).await?;
            offset += status.log_entries.len();
            for line in &status.log_entries {
                log(line);
            }
            if !status.log_entries.is_empty() {
                continue;
            }
            match status.status.as_str() {
                "ready" => return Ok(()),
                "error" => {
                    let reason = status.reason;
                    return Err(Error::Build {
                        step: reason.as_ref().and_then(|reason| reason.step.clone()),
                        message: reason.map_or_else(|| "Unknown error".to_owned(), |r| r.message),
                    });
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }
}
