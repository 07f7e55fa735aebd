//! A builder that plays what the steps say, without any layer.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use warren_cluster::BuildImage;
use warren_service::CancellationToken;
use warren_template::build::{
    BuildFailure, BuildLine, BuildLog, BuildRequest, Builder, Built, CollectError, Collected,
    ExportError,
};
use warren_types::LogLevel;

/// `RUN` says its argument; `WAIT` waits for a permit of the gate; `WARN` says a warning;
/// `LINES n` says so many lines; `FAIL` fails; `PANIC` panics; `ENV k v` sets a variable.
#[derive(Debug)]
pub(crate) struct FakeBuilder {
    pub(crate) gate: Semaphore,
    pub(crate) requests: Mutex<Vec<BuildRequest>>,
    /// What it was told to keep.
    pub(crate) in_use: Mutex<Vec<HashSet<String>>>,
}

impl FakeBuilder {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            gate: Semaphore::new(0),
            requests: Mutex::default(),
            in_use: Mutex::default(),
        })
    }
}

fn line(level: LogLevel, step: &str, message: &str) -> BuildLine {
    BuildLine {
        at: Timestamp::now(),
        level,
        step: Some(step.to_owned()),
        message: message.to_owned(),
    }
}

#[async_trait]
impl Builder for FakeBuilder {
    async fn build(
        &self,
        request: BuildRequest,
        log: BuildLog,
        cancel: CancellationToken,
    ) -> Result<Built, BuildFailure> {
        self.requests.lock().unwrap().push(request.clone());
        let first = format!(
            "Building template {}/{}",
            request.template_id, request.build_id
        );
        log.push(line(LogLevel::Info, "base", &first));
        let mut env = std::collections::BTreeMap::new();
        for (index, step) in request.steps.iter().enumerate() {
            let number = (index + 1).to_string();
            let argument = step.args.first().map(String::as_str).unwrap_or_default();
            match step.kind.as_str() {
                "RUN" => log.push(line(LogLevel::Info, &number, argument)),
                "WARN" => log.push(line(LogLevel::Warn, &number, argument)),
                "ENV" => {
                    env.insert(argument.to_owned(), step.args[1].clone());
                }
                "LINES" => {
                    for n in 0..argument.parse().unwrap() {
                        log.push(line(LogLevel::Info, &number, &format!("line {n}")));
                    }
                }
                "WAIT" => tokio::select! {
                    permit = self.gate.acquire() => permit.unwrap().forget(),
                    () = cancel.cancelled() => {
                        let message = "never shown".to_owned();
                        return Err(BuildFailure { message, step: Some(number) });
                    }
                },
                "FAIL" => {
                    return Err(BuildFailure {
                        message: format!("failed to run command '{argument}': exit status 1"),
                        step: Some(number),
                    });
                }
                "PANIC" => panic!("the builder panicked"),
                other => panic!("no such step: {other}"),
            }
        }
        Ok(Built {
            image: BuildImage {
                template_id: request.template_id,
                build_id: request.build_id,
                layers: vec![format!("sha256-{}", request.steps.len())],
                resources: request.resources,
                default_user: "user".to_owned(),
                default_workdir: None,
                env,
                start: None,
                capture: None,
            },
            disk_mib: 10_240,
        })
    }

    async fn export(&self, image: &BuildImage, tag: &str) -> Result<File, ExportError> {
        let mut file = tempfile::tempfile().map_err(ExportError::Write)?;
        write!(file, "{} as {tag}", image.layers.join(" ")).map_err(ExportError::Write)?;
        file.rewind().map_err(ExportError::Write)?;
        Ok(file)
    }

    async fn collect(&self, in_use: HashSet<String>) -> Result<Option<Collected>, CollectError> {
        self.in_use.lock().unwrap().push(in_use);
        Ok(None)
    }
}
