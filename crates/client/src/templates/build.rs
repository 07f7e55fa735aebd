//! Builds of templates.

use std::io;
use std::path::Path;
use std::time::Duration;

use http::Method;
use tokio_util::io::ReaderStream;
use warren_wire::{
    BuildLogEntry, TemplateBuildInfo, TemplateBuildRequest, TemplateBuildRequested,
    TemplateBuildStart, TemplateFiles, TemplateStep,
};

use super::recipe::{Source, Step, Template};
use super::{image, pack};
use crate::client::Client;
use crate::error::Error;
use crate::http::{call, json};

/// How often a build is asked how far it is.
const POLL: Duration = Duration::from_millis(200);
/// Lines of one answer.
const LINES: usize = 100;
const FILES: &str = "upload files";
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
        log: impl FnMut(&BuildLogEntry),
    ) -> Result<TemplateBuildRequested, Error> {
        let build = self.start_build(template, options).await?;
        self.follow_build(&build, log).await?;
        Ok(build)
    }

    /// Uploads what a template copies and has the server begin with its build.
    ///
    /// # Errors
    /// [`Error`]; status 400 for a name or resources that the server does not take.
    pub async fn start_build(
        &self,
        template: &Template,
        options: &BuildOptions,
    ) -> Result<TemplateBuildRequested, Error> {
        const OPERATION: &str = "request a build";
        let body = TemplateBuildRequest {
            name: Some(options.name.clone()),
            tags: (!options.tags.is_empty()).then(|| options.tags.clone()),
            cpu_count: options.cpu_count.map(u32::cast_signed),
            memory_mb: options.memory_mib.map(u32::cast_signed),
            min_free_disk_mb: options.min_free_disk_mib.map(i64::from),
            ..TemplateBuildRequest::default()
        };
        let requested = call(OPERATION, self.post(&["v3", "templates"], &body)).await?;
        let build: TemplateBuildRequested = json(OPERATION, requested).await?;
        let mut body = TemplateBuildStart {
            from_image_registry: template.registry.clone(),
            steps: self.steps(template, &build).await?,
            force: template.force || options.skip_cache,
            start_cmd: template.start.clone(),
            ready_cmd: template.ready.clone(),
            ..TemplateBuildStart::default()
        };
        match template.source.clone() {
            Source::Image(name) => body.from_image = Some(name),
            Source::Template(name) => body.from_template = Some(name),
            Source::Archive(path) => {
                body.from_image = Some(self.upload_image(&build, &path).await?);
            }
        }
        let path = [
            "v2",
            "templates",
            &build.template_id,
            "builds",
            &build.build_id,
        ];
        call("start a build", self.post(&path, &body)).await?;
        Ok(build)
    }

    /// Asks how far a build is: its state (`waiting`, `building`, `ready`, `error`) and at
    /// most 100 lines of its log after the first `offset`.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such build.
    pub async fn build_status(
        &self,
        build: &TemplateBuildRequested,
        offset: usize,
    ) -> Result<TemplateBuildInfo, Error> {
        const OPERATION: &str = "follow a build";
        let path = [
            "templates",
            &build.template_id,
            "builds",
            &build.build_id,
            "status",
        ];
        let request = self
            .request(Method::GET, &path)
            .query(&[("logsOffset", offset), ("limit", LINES)]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// The steps as the server wants them; files are uploaded on the way.
    async fn steps(
        &self,
        template: &Template,
        build: &TemplateBuildRequested,
    ) -> Result<Vec<TemplateStep>, Error> {
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
            out.push(TemplateStep {
                kind: kind.to_owned(),
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
        build: &TemplateBuildRequested,
        source: &str,
        target: &str,
        force: bool,
    ) -> Result<String, Error> {
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
        let answer = self.place(build, &hash).await?;
        if answer.present && !force {
            return Ok(hash);
        }
        let (file, length) = tokio::task::spawn_blocking(move || packed.archive())
            .await
            .map_err(blocking)??;
        self.put(answer.url, tokio::fs::File::from_std(file), length)
            .await?;
        Ok(hash)
    }

    /// Where the server takes an upload, and whether it has it.
    async fn place(
        &self,
        build: &TemplateBuildRequested,
        hash: &str,
    ) -> Result<TemplateFiles, Error> {
        let path = ["templates", &build.template_id, "files", hash];
        let answer = call(FILES, self.request(Method::GET, &path)).await?;
        json(FILES, answer).await
    }

    async fn put(&self, url: String, file: tokio::fs::File, length: u64) -> Result<(), Error> {
        let request = self
            .shared
            .http
            .put(url)
            .timeout(UPLOAD)
            .header(http::header::CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(ReaderStream::new(file)));
        call(FILES, request).await?;
        Ok(())
    }

    /// Uploads an image unless the server has it; returns the name that builds use.
    async fn upload_image(
        &self,
        build: &TemplateBuildRequested,
        path: &Path,
    ) -> Result<String, Error> {
        let failed = |source: io::Error| Error::File {
            path: path.to_owned(),
            source,
        };
        let file = path.to_owned();
        let digested = tokio::task::spawn_blocking(move || image::digest(&file)).await;
        let (hash, length) = digested
            .map_err(|error| failed(error.into()))?
            .map_err(failed)?;
        let answer = self.place(build, &hash).await?;
        if !answer.present {
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            self.put(answer.url, file, length).await?;
        }
        Ok(format!("oci:{hash}"))
    }

    /// Waits for the end of a build. `log` is given its lines, from the first on.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Build`] when a step fails.
    pub async fn follow_build(
        &self,
        build: &TemplateBuildRequested,
        mut log: impl FnMut(&BuildLogEntry),
    ) -> Result<(), Error> {
        let mut offset = 0;
        loop {
            let status = self.build_status(build, offset).await?;
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
