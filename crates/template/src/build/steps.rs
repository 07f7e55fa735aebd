//! Steps, run in a sandbox.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rand::Rng;
use warren_cluster::BuildSandbox;
use warren_service::Chain;
use warren_types::LogLevel;

use super::archive::{self, ArchiveError};
use super::cache::State;
use super::engine::Build;
use super::phase::Phase;
use super::plan::{self, Context, Copy, Instruction};
use super::port::BuildFailure;
use crate::agent::{self, AgentError, Channel, Outcome, Program};

const USER_SCRIPT: &str = include_str!("scripts/user.sh");
const WORKDIR_SCRIPT: &str = include_str!("scripts/workdir.sh");
const COPY_SCRIPT: &str = include_str!("scripts/copy.sh");
/// Status of the copy script for an archive that its sandbox can't unpack.
const NOT_EXTRACTED: i32 = 90;
/// Scripts of ours that only look or touch a few files.
const SCRIPT_LIMIT: Duration = Duration::from_secs(300);
/// Longest environment that is read back.
const MAX_ENV: usize = 1 << 20;
const MIB: u64 = 1024 * 1024;

type Layers = (Vec<String>, Context);

impl Build<'_> {
    /// Runs an instruction on a state; gives the layers and the context after it.
    pub(super) async fn instruction(
        &self,
        phase: &Phase,
        state: &State,
        instruction: &Instruction,
    ) -> Result<Layers, BuildFailure> {
        let mut context = state.context.clone();
        let mut layers = state.layers.clone();
        let layer = match instruction {
            Instruction::Run { command, user } => {
                self.run_command(phase, state, command, user.as_deref())
                    .await?
            }
            Instruction::Copy(copy) => self.copy(phase, state, copy).await?,
            Instruction::Env(pairs) => {
                let texts: Vec<&str> = pairs.iter().map(|(_, value)| value.as_str()).collect();
                let outer = self.outer_env(phase, state, &texts).await?;
                context.env = plan::set_env(&context.env, &outer, pairs);
                None
            }
            Instruction::Workdir(path) => {
                let outer = self.outer_env(phase, state, &[path]).await?;
                let path = expanded(&context.env, &outer, path);
                let base = context.workdir.as_deref().unwrap_or("/");
                let path = plan::join(base, &path);
                let args = [path.as_str(), &context.user];
                let sandbox = self.open(&state.layers).await?;
                let script = Program::script(WORKDIR_SCRIPT, &args, SCRIPT_LIMIT);
                let told = ("failed to create workdir", LogLevel::Info);
                let layer = self.script(phase, sandbox, script, told).await?;
                context.workdir = Some(path);
                layer
            }
            Instruction::User { name, admin } => {
                let args = [name.as_str(), if *admin { "true" } else { "" }];
                let sandbox = self.open(&state.layers).await?;
                let script = Program::script(USER_SCRIPT, &args, SCRIPT_LIMIT);
                let told = ("failed to create user", LogLevel::Info);
                let layer = self.script(phase, sandbox, script, told).await?;
                context.user.clone_from(name);
                layer
            }
        };
        layers.extend(layer);
        Ok((layers, context))
    }

    /// Runs a program and logs what it writes.
    pub(super) async fn program(
        &self,
        phase: &Phase,
        sandbox: &dyn BuildSandbox,
        program: Program<'_>,
        level: LogLevel,
    ) -> Result<(Outcome, String), AgentError> {
        let mut lines = phase.output(level, None);
        let outcome = agent::run(sandbox, program, |channel, bytes| {
            lines.push(channel, bytes)
        })
        .await;
        lines.finish();
        Ok((outcome?, lines.tail()))
    }

    /// Runs a script of ours and makes a layer of what it wrote.
    pub(super) async fn script(
        &self,
        phase: &Phase,
        sandbox: Box<dyn BuildSandbox>,
        script: Program<'_>,
        (failure, level): (&str, LogLevel),
    ) -> Result<Option<String>, BuildFailure> {
        let ran = self.program(phase, sandbox.as_ref(), script, level).await;
        let outcome = match ran {
            Ok((outcome, _)) => outcome,
            Err(error) => return Err(phase.failure(format!("{failure}: {}", Chain(&error)))),
        };
        if !outcome.succeeded() {
            return Err(phase.failure(format!("{failure}: {outcome}")));
        }
        self.commit(sandbox).await
    }

    async fn run_command(
        &self,
        phase: &Phase,
        state: &State,
        command: &str,
        user: Option<&str>,
    ) -> Result<Option<String>, BuildFailure> {
        let context = &state.context;
        let sandbox = self.open(&state.layers).await?;
        let user = user.unwrap_or(&context.user);
        let program = Program {
            workdir: context.workdir.as_deref(),
            env: context.command_env(),
            ..Program::shell(command, user, Self::STEP_LIMIT)
        };
        let ran = self
            .program(phase, sandbox.as_ref(), program, LogLevel::Info)
            .await;
        let reason = match ran {
            Ok((outcome, _)) if outcome.succeeded() => return self.commit(sandbox).await,
            Ok((outcome, _)) => outcome.to_string(),
            Err(AgentError::Refused(error)) => format!("command failed: {error}"),
            Err(error) => Chain(&error).to_string(),
        };
        Err(phase.failure(format!("failed to run command '{command}': {reason}")))
    }

    /// Variables that a command of the context's user has from elsewhere, asked for only if
    /// one of the texts needs them.
    async fn outer_env(
        &self,
        phase: &Phase,
        state: &State,
        texts: &[&str],
    ) -> Result<BTreeMap<String, String>, BuildFailure> {
        let context = &state.context;
        if !plan::needs_more_than(&context.env, texts) {
            return Ok(BTreeMap::new());
        }
        let sandbox = self.open(&state.layers).await?;
        let program = Program {
            env: context.command_env(),
            ..Program::shell("env -0", &context.user, SCRIPT_LIMIT)
        };
        let mut text = Vec::new();
        let ran = agent::run(sandbox.as_ref(), program, |channel, bytes| {
            if channel == Channel::Stdout && text.len() + bytes.len() <= MAX_ENV {
                text.extend_from_slice(bytes);
            }
        })
        .await;
        match ran {
            Ok(outcome) if outcome.succeeded() => {}
            Ok(outcome) => {
                return Err(phase.failure(format!("failed to read the environment: {outcome}")));
            }
            Err(error) => {
                let reason = Chain(&error);
                return Err(phase.failure(format!("failed to read the environment: {reason}")));
            }
        }
        sandbox.end().await;
        let pairs = text.split(|&byte| byte == 0).filter_map(|pair| {
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(pairs.collect())
    }

    async fn copy(
        &self,
        phase: &Phase,
        state: &State,
        copy: &Copy,
    ) -> Result<Option<String>, BuildFailure> {
        let context = &state.context;
        let missing = |reason: &str| {
            phase.failure(format!(
                "failed to open files object from storage: {reason}"
            ))
        };
        let archive = self.request.files.get(&copy.files_hash);
        let archive = archive.ok_or_else(|| missing("no such object"))?;
        let entry = plan::without_pattern(&copy.src);
        let refined = {
            let (archive, wanted, drafts) =
                (archive.clone(), entry.clone(), self.engine.drafts.clone());
            let max_bytes = u64::from(self.request.resources.disk_mib) * MIB;
            let work = move || refine(&archive, &wanted, &drafts, max_bytes);
            self.engine.tasks.spawn_blocking(work).await
        };
        let refined = refined.map_err(|error| self.internal("read an archive", &error))?;
        let (file, length) = refined.map_err(|error| match &error {
            CopyError::Open(source) => missing(&source.to_string()),
            CopyError::Draft(source) => self.internal("write a draft", source),
            CopyError::Archive(source) => {
                phase.failure(format!("failed to extract files: {}", Chain(source)))
            }
        })?;
        let outer = self.outer_env(phase, state, &[&copy.dest]).await?;
        let dest = expanded(&context.env, &outer, &copy.dest);
        let name = hex::encode(rand::rng().random::<[u8; 8]>());
        let path = format!("/tmp/.copy-{name}");
        let sandbox = self.open(&state.layers).await?;
        let sent = agent::upload(
            sandbox.as_ref(),
            &path,
            tokio::fs::File::from_std(file),
            length,
        );
        sent.await.map_err(|error| {
            phase.failure(format!("failed to extract files: {}", Chain(&error)))
        })?;
        let args = [
            path.as_str(),
            &entry,
            &dest,
            context.workdir.as_deref().unwrap_or(""),
            &context.user,
            copy.owner.as_deref().unwrap_or(&context.user),
            copy.mode.as_deref().unwrap_or(""),
        ];
        let script = Program::script(COPY_SCRIPT, &args, Self::STEP_LIMIT);
        let ran = self
            .program(phase, sandbox.as_ref(), script, LogLevel::Info)
            .await;
        match ran {
            Ok((outcome, _)) if outcome.succeeded() => self.commit(sandbox).await,
            Ok((outcome, tail)) if outcome.code == NOT_EXTRACTED => {
                Err(phase.failure(format!("failed to extract files: {tail}")))
            }
            Ok((outcome, _)) => {
                Err(phase.failure(format!("failed to move files in sandbox: {outcome}")))
            }
            Err(error) => {
                let reason = Chain(&error);
                Err(phase.failure(format!("failed to move files in sandbox: {reason}")))
            }
        }
    }
}

fn expanded(
    env: &BTreeMap<String, String>,
    outer: &BTreeMap<String, String>,
    text: &str,
) -> String {
    plan::expand(text, &|name| {
        env.get(name).or_else(|| outer.get(name)).cloned()
    })
}

/// Why an archive can't be copied from.
#[derive(Debug)]
enum CopyError {
    Open(std::io::Error),
    Draft(std::io::Error),
    Archive(ArchiveError),
}

/// Checks an archive and writes what a copy takes of it to an unnamed file.
fn refine(
    archive: &Path,
    wanted: &str,
    drafts: &Path,
    max_bytes: u64,
) -> Result<(File, u64), CopyError> {
    use std::io::{Seek, SeekFrom};
    let from = File::open(archive).map_err(CopyError::Open)?;
    let mut draft = unnamed(drafts).map_err(CopyError::Draft)?;
    archive::refine(from, Path::new(wanted), max_bytes, &mut draft).map_err(CopyError::Archive)?;
    let length = draft.seek(SeekFrom::End(0)).map_err(CopyError::Draft)?;
    draft.seek(SeekFrom::Start(0)).map_err(CopyError::Draft)?;
    Ok((draft, length))
}

/// A file that vanishes with its last descriptor.
pub(super) fn unnamed(dir: &Path) -> std::io::Result<File> {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(open(dir, flags, Mode::from_raw_mode(0o600))?.into())
}
