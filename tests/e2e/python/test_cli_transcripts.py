"""Whole sessions at the terminal, compared line by line with `transcripts/*.txt`.

A line `$ command` is run by bash; what follows is its output, then its errors marked `! `,
then `exit code N` unless that is 0. What differs from run to run has a name in angle
brackets, which commands may use once it has been printed. WARREN_UPDATE_TRANSCRIPTS=1
writes the files anew.
"""

import os
import re
import subprocess
import uuid
from pathlib import Path

import pytest

WARREN = os.environ.get("WARREN_BIN")
DIRECTORY = Path(__file__).parent / "transcripts"
UPDATE = os.environ.get("WARREN_UPDATE_TRANSCRIPTS") == "1"

pytestmark = pytest.mark.skipif(WARREN is None, reason="WARREN_BIN names no program")

# Values that are given names, so that the same value has the same name.
NAMED = [
    ("sandbox", re.compile(r"\bi[a-z0-9]{20}\b")),
    ("build", re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")),
    ("id", re.compile(r"\b[a-z0-9]{20}\b")),
]
# Values that are only hidden.
HIDDEN = [
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?"), "<time>"),
    (re.compile(r"^ *\d+\.\ds \|", re.M), "<seconds> |"),
    (re.compile(r"\[[0-9a-f]{12}\]"), "[<layer>]"),
    (re.compile(r"e2b_[0-9a-f]+…"), "e2b_<key>…"),
    (re.compile(r"(took|after) [0-9.]+ ?m?s"), r"\1 <duration>"),
]


class Session:
    """Runs commands and puts names for what differs."""

    def __init__(self, directory):
        self.directory = directory
        self.names = {}
        self.unique = f"tr-{uuid.uuid4().hex[:10]}"
        self.names[self.unique] = "<name>"
        self.names[str(directory)] = "<directory>"
        self.path = f"{Path(WARREN).resolve().parent}{os.pathsep}{os.environ['PATH']}"

    def show(self, text):
        for value, name in self.names.items():
            text = text.replace(value, name)
        for kind, pattern in NAMED:
            for value in dict.fromkeys(pattern.findall(text)):
                number = sum(name.startswith(f"<{kind}-") for name in self.names.values()) + 1
                self.names[value] = f"<{kind}-{number}>"
                text = text.replace(value, self.names[value])
        for pattern, name in HIDDEN:
            text = pattern.sub(name, text)
        # Columns are as wide as what is in them.
        return re.sub(r"(?<=\S) {3,}", "   ", text)

    def run(self, command):
        for value, name in self.names.items():
            command = command.replace(name, value)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            # Usage lines name what the environment sets.
            env={k: v for k, v in os.environ.items() if not k.startswith("WARREN_")}
            | {"PATH": self.path, "HOME": str(self.directory), "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
        lines = self.show(done.stdout).splitlines()
        lines += [f"! {line}" for line in self.show(done.stderr).splitlines()]
        if done.returncode:
            lines.append(f"exit code {done.returncode}")
        return lines


@pytest.mark.parametrize("file", sorted(DIRECTORY.glob("*.txt")), ids=lambda file: file.stem)
def test_a_session_reads_as_written(file, tmp_path):
    session = Session(tmp_path)
    wanted = file.read_text().splitlines()
    seen = []
    try:
        for line in wanted:
            if line.startswith("#"):
                seen.append(line)
            if line.startswith("$ "):
                seen += [line, *session.run(line[2:])]
    finally:
        for value, name in session.names.items():
            if name.startswith("<sandbox-"):
                subprocess.run([WARREN, "sandbox", "kill", value], capture_output=True, timeout=60)
        for name in [session.unique, f"{session.unique}-dev"]:
            command = [WARREN, "template", "delete", name, "-y"]
            subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    if UPDATE:
        file.write_text("\n".join(seen) + "\n")
    assert seen == wanted
