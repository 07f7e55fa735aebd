#!/usr/bin/env python3
"""Runs the examples of the documentation against a running server.

Fenced blocks tagged `python`, `javascript`, `js`, `bash` or `sh` in README.md and
docs/*.md are run one by one; each must exit with 0. A block is left out only when the
comment `<!-- not-run: reason -->` stands before it, and the reason is shown.

    run_examples.py [--node-dir DIR] [--list] [FILE...]

The environment names the server as the SDKs expect it (E2B_API_URL, E2B_SANDBOX_URL,
E2B_API_KEY), and WARREN_BIN the program that examples call `warren`. JavaScript runs in a file inside --node-dir, so that imports find the
packages installed there.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LANGUAGES = {"python": "python", "javascript": "js", "js": "js", "bash": "bash", "sh": "bash"}
FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})[ ]*(?P<info>[^`]*)$")
NOT_RUN = re.compile(r"<!--\s*not-run:\s*(?P<reason>.+?)\s*-->", re.DOTALL)
SECONDS = 180


class MalformedDocument(Exception):
    """A document that can't be read as intended."""


@dataclass(frozen=True)
class Example:
    """One block of a document."""

    file: Path
    line: int
    language: str
    code: str
    not_run: str | None

    @property
    def name(self) -> str:
        try:
            shown = self.file.relative_to(ROOT)
        except ValueError:
            shown = self.file
        return f"{shown}:{self.line}"


def examples(file: Path, text: str) -> list[Example]:
    """The runnable blocks of one document, in order."""
    found: list[Example] = []
    lines = text.splitlines()
    between = 0
    number = 0
    while number < len(lines):
        opened = FENCE.match(lines[number])
        if not opened:
            number += 1
            continue
        first = number + 1
        marks, indent = opened["marks"], len(opened["indent"])
        number = first
        while number < len(lines) and not closes(lines[number], marks):
            number += 1
        if number == len(lines):
            raise MalformedDocument(f"{file}:{first}: the fence is never closed")
        words = opened["info"].split()
        language = LANGUAGES.get(words[0].lower() if words else "")
        if language:
            code = "\n".join(
                line[indent:] if line[:indent].isspace() else line for line in lines[first:number]
            )
            found.append(
                Example(file, first, language, code + "\n", reason(lines[between : first - 1]))
            )
        number += 1
        between = number
    return found


def closes(line: str, marks: str) -> bool:
    """Whether a line ends a block that `marks` opened."""
    stripped = line.strip()
    return len(stripped) >= len(marks) and set(stripped) == {marks[0]}


def reason(before: list[str]) -> str | None:
    """The reason of a comment directly before a block, blank lines aside."""
    text = "\n".join(before).rstrip()
    if not text.endswith("-->"):
        return None
    found = NOT_RUN.match(text[text.rindex("<!--") :])
    return found["reason"] if found else None


def command(example: Example, script: Path) -> list[str]:
    """How to run an example that was written to a file."""
    if example.language == "python":
        return [sys.executable, str(script)]
    if example.language == "js":
        return ["node", str(script)]
    return ["bash", "-euo", "pipefail", str(script)]


def environment() -> dict[str, str]:
    """That of this program; `warren` in an example is the program under test."""
    program = os.environ.get("WARREN_BIN")
    if program is None:
        return dict(os.environ)
    path = f"{Path(program).resolve().parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def run(example: Example, node_dir: Path) -> str | None:
    """Runs one example; returns what went wrong, or None."""
    suffix = {"python": ".py", "js": ".mjs", "bash": ".sh"}[example.language]
    with tempfile.TemporaryDirectory(prefix="warren-example-") as scratch:
        # A module is resolved from where its file is, so JavaScript lies beside node_modules.
        where = node_dir if example.language == "js" else Path(scratch)
        descriptor, path = tempfile.mkstemp(suffix=suffix, prefix=".example-", dir=where)
        script = Path(path)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(example.code)
            done = subprocess.run(
                command(example, script),
                cwd=scratch,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            return f"still running after {SECONDS} s"
        finally:
            script.unlink()
    if done.returncode == 0:
        return None
    return f"exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def documents() -> list[Path]:
    """The documents whose examples are promises."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--node-dir", type=Path, default=ROOT / "tests" / "e2e" / "js")
    parser.add_argument("--list", action="store_true", help="show the examples, run none")
    options = parser.parse_args()

    files = [file for file in options.files or documents() if options.files or file.exists()]
    found = [example for file in files for example in examples(file, file.read_text())]
    failed = 0
    for example in found:
        if example.not_run:
            print(f"left out  {example.name} ({example.language}): {example.not_run}")
        elif options.list:
            print(f"example   {example.name} ({example.language})")
        elif problem := run(example, options.node_dir):
            failed += 1
            print(f"FAILED    {example.name} ({example.language}): {problem}")
        else:
            print(f"passed    {example.name} ({example.language})")
        sys.stdout.flush()
    print(f"{len(found)} examples, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
