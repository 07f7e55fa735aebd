//! Dockerfiles as templates. Conversion rules are those of the official clients.

use std::collections::BTreeMap;

use parse_dockerfile::{
    Command, CopyInstruction, Flag, FromInstruction, HereDoc, Instruction, RunInstruction, Source,
    UnescapedString,
};

use super::recipe::{CopyOptions, Template};
use crate::error::Error;
use crate::shell::{join_words, quote};

/// Ready command of a start command that came without one.
const READY: &str = "sleep 20";
const UNKNOWN_FORM: &str = "this form of the instruction is not supported";

/// Converts the text of a Dockerfile; returns also what was left out.
pub(super) fn convert(text: &str) -> Result<(Template, Vec<String>), Error> {
    let parsed = parse_dockerfile::parse(text).map_err(|error| Error::Dockerfile {
        line: error.line(),
        message: error.to_string(),
    })?;
    let mut reader = Reader {
        text,
        notes: Vec::new(),
    };
    let mut from = None;
    let mut globals = BTreeMap::new();
    let mut rest = Vec::new();
    for instruction in &parsed.instructions {
        match instruction {
            Instruction::From(stage) if from.is_none() => from = Some(stage),
            Instruction::From(stage) => {
                return Err(reader.refuse(
                    stage.from.span.start,
                    "Multi-stage Dockerfiles are not supported",
                ));
            }
            Instruction::Arg(arg) if from.is_none() => globals.extend(pairs(&arg.arguments.value)),
            other => rest.push(other),
        }
    }
    let Some(from) = from else {
        return Err(reader.refuse(0, "Dockerfile must contain a FROM instruction"));
    };
    let image = reader.image(from, &globals);
    let mut template = Template::from_image(image).user("root").workdir("/");
    let (mut has_user, mut has_workdir) = (false, false);
    let (mut entry, mut command) = (None, None);
    for instruction in rest {
        template = match instruction {
            Instruction::Run(run) => reader.run(template, run)?,
            Instruction::Copy(copy) => reader.copy(template, copy)?,
            Instruction::Add(add) => {
                let remote = add.src.iter().any(|source| match source {
                    Source::Path(path) => {
                        path.value.contains("://") || path.value.starts_with("git@")
                    }
                    _ => false,
                });
                if remote {
                    return Err(
                        reader.refuse(add.add.span.start, "ADD of a remote file is not supported")
                    );
                }
                reader.copies(
                    template,
                    add.add.span.start,
                    &add.options,
                    &add.src,
                    &add.dest,
                )?
            }
            Instruction::Env(env) => template.env(pairs(&env.arguments.value)),
            Instruction::Arg(arg) => template.env(pairs(&arg.arguments.value)),
            Instruction::Workdir(workdir) => {
                has_workdir = true;
                template.workdir(workdir.arguments.value.trim())
            }
            Instruction::User(user) => {
                has_user = true;
                template.user(user.arguments.value.trim())
            }
            Instruction::Cmd(cmd) => {
                command = Some(&cmd.arguments);
                template
            }
            Instruction::Entrypoint(point) => {
                // As in Docker, an entry point forgets the command before it.
                entry = Some(&point.arguments);
                command = None;
                template
            }
            Instruction::Expose(_)
            | Instruction::Volume(_)
            | Instruction::Label(_)
            | Instruction::Maintainer(_) => template,
            other => {
                reader.leave_out(other);
                template
            }
        };
    }
    if !has_user {
        template = template.user("user");
    }
    if !has_workdir {
        template = template.workdir("/home/user");
    }
    if let Some(line) = start_line(entry, command) {
        template = template.start(line, READY);
    }
    Ok((template, reader.notes))
}

/// The text, for line numbers, and what was left out of it.
struct Reader<'a> {
    text: &'a str,
    notes: Vec<String>,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.bytes().filter(|&byte| byte == b'\n').count() + 1
    }

    fn refuse(&self, at: usize, message: &str) -> Error {
        Error::Dockerfile {
            line: self.line(at),
            message: message.to_owned(),
        }
    }

    fn note(&mut self, at: usize, what: &str) {
        let line = self.line(at);
        self.notes.push(format!("line {line}: {what} is left out"));
    }

    fn leave_out(&mut self, instruction: &Instruction<'_>) {
        let (at, what) = match instruction {
            Instruction::Healthcheck(check) => (check.healthcheck.span.start, "HEALTHCHECK"),
            Instruction::Onbuild(onbuild) => (onbuild.onbuild.span.start, "ONBUILD"),
            Instruction::Shell(shell) => (shell.shell.span.start, "SHELL"),
            Instruction::Stopsignal(stop) => (stop.stopsignal.span.start, "STOPSIGNAL"),
            _ => (0, "an instruction"),
        };
        self.note(at, what);
    }

    fn image(&mut self, from: &FromInstruction<'_>, globals: &BTreeMap<String, String>) -> String {
        for option in &from.options {
            self.note(from.from.span.start, &format!("--{}", option.name.value));
        }
        expand(&from.image.value, globals)
    }

    fn run(&mut self, template: Template, run: &RunInstruction<'_>) -> Result<Template, Error> {
        for option in &run.options {
            self.note(run.run.span.start, &format!("--{}", option.name.value));
        }
        let line = line_of(&run.arguments, &run.here_docs)
            .ok_or_else(|| self.refuse(run.run.span.start, UNKNOWN_FORM))?;
        Ok(template.run(line))
    }

    fn copy(&mut self, template: Template, copy: &CopyInstruction<'_>) -> Result<Template, Error> {
        self.copies(
            template,
            copy.copy.span.start,
            &copy.options,
            &copy.src,
            &copy.dest,
        )
    }

    /// One step for each source.
    fn copies(
        &mut self,
        mut template: Template,
        at: usize,
        flags: &[Flag<'_>],
        sources: &[Source<'_>],
        target: &UnescapedString<'_>,
    ) -> Result<Template, Error> {
        let mut options = CopyOptions::default();
        for flag in flags {
            let value = flag.value.as_ref().map(|value| value.value.as_ref());
            match (flag.name.value.as_ref(), value) {
                ("chown", Some(owner)) => options.owner = Some(owner.to_owned()),
                ("chmod", Some(mode)) => {
                    let mode = u32::from_str_radix(mode, 8);
                    options.mode = Some(mode.map_err(|_| {
                        self.refuse(at, "--chmod must be an octal number, such as 755")
                    })?);
                }
                ("from", _) => {
                    return Err(self.refuse(at, "COPY --from is not supported"));
                }
                (name, _) => self.note(at, &format!("--{name}")),
            }
        }
        for source in sources {
            template = match source {
                Source::Path(path) => template.copy(
                    path.value.trim_start_matches('/'),
                    target.value.as_ref(),
                    options.clone(),
                ),
                Source::HereDoc(document) => {
                    template.run_as("root", write_file(&document.value, &target.value, &options))
                }
                _ => return Err(self.refuse(at, UNKNOWN_FORM)),
            };
        }
        Ok(template)
    }
}

/// A line that makes a file of the text.
fn write_file(text: &str, target: &str, options: &CopyOptions) -> String {
    let path = quote(target);
    let mut line = format!(
        "mkdir -p \"$(dirname {path})\" && printf %s {} > {path}",
        quote(text)
    );
    if let Some(owner) = &options.owner {
        line.push_str(&format!(" && chown {} {path}", quote(owner)));
    }
    if let Some(mode) = options.mode {
        line.push_str(&format!(" && chmod {mode:o} {path}"));
    }
    line
}

/// Shell text without the comments that may stand between continued lines.
fn shell_text(text: &str, documents: &[HereDoc<'_>]) -> String {
    let lines: Vec<&str> = text
        .lines()
        .enumerate()
        .filter(|(number, line)| *number == 0 || !line.trim_start().starts_with('#'))
        .map(|(_, line)| line)
        .collect();
    // The parser takes a here-document only as the whole of a line: it is the script then.
    match documents {
        [] => lines.join("\n").trim().to_owned(),
        documents => {
            let scripts: Vec<&str> = documents.iter().map(|one| one.value.trim_end()).collect();
            scripts.join("\n")
        }
    }
}

/// The shell line of either form.
fn line_of(command: &Command<'_>, documents: &[HereDoc<'_>]) -> Option<String> {
    match command {
        Command::Exec(words) => Some(join_quoted(&words.value)),
        Command::Shell(text) => Some(shell_text(text.value, documents)),
        _ => None,
    }
}

/// What starts when a container would: entry point and command, combined as Docker does.
fn start_line(entry: Option<&Command<'_>>, command: Option<&Command<'_>>) -> Option<String> {
    fn line(command: &Command<'_>) -> Option<String> {
        line_of(command, &[])
    }
    match (entry, command) {
        (None, command) => command.and_then(line),
        (Some(entry @ Command::Exec(_)), Some(command)) => {
            let arguments = match command {
                Command::Exec(_) => line(command)?,
                _ => format!("/bin/sh -c {}", quote(&line(command)?)),
            };
            Some(format!("{} {arguments}", line(entry)?))
        }
        // In shell form it takes no arguments.
        (Some(entry), _) => line(entry),
    }
}

fn join_quoted(words: &[UnescapedString<'_>]) -> String {
    join_words(words.iter().map(|word| word.value.as_ref()))
}

/// `NAME=value …` with quotes and escapes taken off, or the old form `NAME value`; a name
/// alone is empty. `$NAME` stays, for the server to expand.
fn pairs(text: &str) -> Vec<(String, String)> {
    let text = text.trim();
    if let Some((name, value)) = text.split_once(char::is_whitespace)
        && !name.contains('=')
        && !value.contains('=')
    {
        return vec![(name.to_owned(), value.trim().to_owned())];
    }
    split_words(text)
        .into_iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (word, String::new()),
        })
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn split_words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quoted) {
            ('\\', None | Some('"')) => {
                if let Some(next) = chars.next()
                    && next != '\n'
                {
                    let word = word.get_or_insert_default();
                    if quoted.is_some() && !"\"\\$`".contains(next) {
                        word.push('\\');
                    }
                    word.push(next);
                }
            }
            ('"' | '\'', None) => {
                quoted = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(quote)) if c == quote => quoted = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Puts the values of arguments in the place of `$NAME`, `${NAME}` and `${NAME:-default}`.
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some((inner, tail)) = after.strip_prefix('{').and_then(|a| a.split_once('}')) {
            let (name, default) = inner.split_once(":-").unwrap_or((inner, ""));
            let value = values.get(name).filter(|value| !value.is_empty());
            out.push_str(value.map_or(default, String::as_str));
            rest = tail;
        } else {
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            out.push_str(values.get(name).map_or("", String::as_str));
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::recipe::{Source, Step};
    use super::*;

    fn steps(text: &str) -> Vec<Step> {
        let (template, _) = convert(text).unwrap();
        template.steps.into_iter().map(|(step, _)| step).collect()
    }

    fn run(command: &str) -> Step {
        Step::Run {
            command: command.to_owned(),
            user: None,
        }
    }

    #[test]
    fn a_small_file_becomes_its_steps() {
        let text = "ARG V=3\nFROM --platform=linux/amd64 python:${V} AS x\n# c\n\
                    RUN apt-get update && \\\n # note\n  apt-get install -y git\n\
                    COPY --chown=user:user --chmod=755 a.py b.py /app/\n\
                    ENV A=1 B=\"two words\" C=$A\nCMD [\"python\", \"/app/a b.py\"]\n";
        let (template, notes) = convert(text).unwrap();
        assert_eq!(template.source, Source::Image("python:3".to_owned()));
        assert_eq!(notes, ["line 2: --platform is left out"]);
        assert_eq!(template.start.as_deref(), Some("python '/app/a b.py'"));
        assert_eq!(template.ready.as_deref(), Some(READY));
        let copied = |source: &str| Step::Copy {
            source: source.to_owned(),
            target: "/app/".to_owned(),
            options: CopyOptions {
                owner: Some("user:user".to_owned()),
                mode: Some(0o755),
                force_upload: false,
            },
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            steps(text),
            [
                Step::User("root".to_owned()),
                Step::Workdir("/".to_owned()),
                run("apt-get update && \\\n  apt-get install -y git"),
                copied("a.py"),
                copied("b.py"),
                Step::Env(vec![
                    pair("A", "1"),
                    pair("B", "two words"),
                    pair("C", "$A")
                ]),
                Step::User("user".to_owned()),
                Step::Workdir("/home/user".to_owned()),
            ]
        );
    }

    #[test]
    fn an_own_user_and_directory_stay() {
        let all = steps("FROM a\nUSER bob\nWORKDIR /srv\n");
        assert_eq!(all.last(), Some(&Step::Workdir("/srv".to_owned())));
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn here_documents_are_scripts_and_files() {
        let script = steps("FROM a\nRUN <<EOF\necho one\necho two\nEOF\n");
        assert_eq!(script[2], run("echo one\necho two"));
        let file = steps("FROM a\nCOPY <<EOF /etc/x\nit's\nEOF\n");
        let Step::Run { command, user } = &file[2] else {
            panic!("{file:?}")
        };
        assert_eq!(user.as_deref(), Some("root"));
        assert!(command.contains("> /etc/x"), "{command}");
    }

    #[test]
    fn what_needs_more_than_one_stage_is_refused_with_its_line() {
        for (text, line) in [
            ("FROM a\nFROM b\n", 2),
            ("FROM a\n\nCOPY --from=x /a /b\n", 3),
            ("FROM a\nADD https://example.com/x /x\n", 2),
            ("FROM a\nCOPY --chmod=u+x a /b\n", 2),
        ] {
            match convert(text) {
                Err(Error::Dockerfile { line: found, .. }) => assert_eq!(found, line, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(convert("RUN x\n").is_err());
        assert!(convert("").is_err());
    }

    #[test]
    fn start_lines_combine_as_docker_does() {
        let start = |text: &str| convert(&format!("FROM a\n{text}")).unwrap().0.start;
        assert_eq!(start("CMD npm start").as_deref(), Some("npm start"));
        assert_eq!(
            start("ENTRYPOINT [\"a\"]\nCMD [\"b c\"]").as_deref(),
            Some("a 'b c'")
        );
        assert_eq!(start("ENTRYPOINT a\nCMD [\"b\"]").as_deref(), Some("a"));
        assert_eq!(
            start("CMD [\"b\"]\nENTRYPOINT [\"a\"]").as_deref(),
            Some("a")
        );
        assert_eq!(start("RUN x"), None);
    }

    #[test]
    fn variables_are_split_as_a_shell_would() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            let pairs = pairs.iter();
            pairs
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect()
        };
        assert_eq!(
            pairs("A=1 B='x y' C=a\\ b D=\"q\\\"r\""),
            owned(&[("A", "1"), ("B", "x y"), ("C", "a b"), ("D", "q\"r"),])
        );
        assert_eq!(pairs("OLD form of it"), owned(&[("OLD", "form of it")]));
        assert_eq!(pairs("NAME"), owned(&[("NAME", "")]));
        assert_eq!(pairs("E="), owned(&[("E", "")]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = convert(&text);
            let _ = convert(&format!("FROM a\nRUN {text}\nENV {text}\nCOPY {text} /x\n"));
        }
    }
}
