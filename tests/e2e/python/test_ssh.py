"""OpenSSH's own programs against the server: shells, commands, files, forwarded ports."""

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from e2b import Sandbox

from support import env
from support.server import free_port
from support.wait import until

pytestmark = pytest.mark.timeout(120)

NOT_SERVED = 255


class Ssh:
    """OpenSSH with a key of its own that the team knows."""

    def __init__(self, directory: Path, server: dict):
        self.port = server["port"]
        self.key = directory / "key"
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", directory.name, "-f", self.key]
        subprocess.run(keygen, check=True)
        self.public = (directory / "key.pub").read_text()
        known = directory / "known"
        known.write_text(f"[127.0.0.1]:{self.port} {server['hostKey']}\n")
        self.options = [
            "-F", "none",
            "-o", f"UserKnownHostsFile={known}",
            "-o", "GlobalKnownHostsFile=/dev/null",
            "-o", "StrictHostKeyChecking=yes",
            "-o", "IdentitiesOnly=yes",
            "-o", "BatchMode=yes",
            "-o", "LogLevel=INFO",
            "-i", str(self.key),
        ]  # fmt: skip

    def command(self, user: str, *words: str, flags: tuple[str, ...] = ()) -> list[str]:
        to = ["-p", str(self.port), f"{user}@127.0.0.1"]
        return ["ssh", *self.options, *flags, *to, *words]

    def run(self, user: str, *words: str, flags=(), data: bytes = b"", seconds=60):
        command = self.command(user, *words, flags=flags)
        return subprocess.run(command, input=data, capture_output=True, timeout=seconds)

    @contextlib.contextmanager
    def held(self, user: str, *words: str, flags: tuple[str, ...] = ()):
        """A client that runs until it is closed."""
        command = self.command(user, *words, flags=flags)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)


@pytest.fixture(scope="module")
def ssh(tmp_path_factory, api) -> Ssh:
    answer = api.get("/ssh")
    assert answer.status_code == 200, answer.text
    ssh = Ssh(tmp_path_factory.mktemp("ssh"), answer.json())
    added = api.post("/ssh-keys", json={"publicKey": ssh.public})
    assert added.status_code == 201, added.text
    yield ssh
    assert api.delete(f"/ssh-keys/{added.json()['keyID']}").status_code == 204


@pytest.fixture
def user(sandbox) -> str:
    return sandbox.sandbox_id


def test_a_command_has_its_output_errors_and_exit_code(ssh, user):
    done = ssh.run(user, "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)
    done = ssh.run(user, "pwd; whoami; echo $SSH_CONNECTION")
    home, name, connection = done.stdout.decode().splitlines()
    assert (home, name) == ("/home/user", "user")
    assert re.fullmatch(rf"127\.0\.0\.1 \d+ 127\.0\.0\.1 {ssh.port}", connection)
    assert ssh.run(f"{user}+root", "whoami").stdout == b"root\n"


def test_the_end_by_a_signal_is_told(ssh, user):
    done = ssh.run(user, "kill -KILL $$")
    assert done.returncode == NOT_SERVED
    assert ssh.run(user, "no-such-program").returncode == 127


def test_input_is_piped_with_its_end(ssh, user):
    data = os.urandom(3_000_000)
    done = ssh.run(user, "sha256sum", data=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert ssh.run(user, "cat").stdout == b""


def test_a_process_that_ends_early_leaves_its_input(ssh, user):
    done = ssh.run(user, "head -c 5; exit 3", data=b"x" * 4_000_000)
    assert (done.stdout, done.returncode) == (b"xxxxx", 3)


def test_both_directions_flow_at_once(ssh, user):
    data = os.urandom(12_000_000)
    assert ssh.run(user, "cat", data=data).stdout == data


def test_output_much_longer_than_input_does_not_block(ssh, user):
    # More of each than windows and buffers hold together.
    data = (b"x" * 1023 + b"\n") * 6 * 1024
    done = ssh.run(user, "awk '{ for (i = 0; i < 12; i++) print }'", data=data)
    assert len(done.stdout) == 12 * len(data)
    assert done.returncode == 0


def test_a_stalled_session_leaves_the_others_of_its_connection_alone(ssh, user, tmp_path):
    control = tmp_path / "control"
    master = ("-M", "-S", str(control))
    with ssh.held(user, "sleep 1000", flags=master) as stalled:
        until(control.exists, "the connection stands", 10)

        def stuff():
            with contextlib.suppress(OSError):
                stalled.stdin.write(b"x" * 8_000_000)
                stalled.stdin.flush()

        threading.Thread(target=stuff, daemon=True).start()
        shared = ("-S", str(control))
        for count in range(5):
            assert ssh.run(user, f"echo {count}", flags=shared).stdout == b"%d\n" % count
        data = os.urandom(300_000)
        assert ssh.run(user, "cat", flags=shared, data=data).stdout == data


def test_variables_of_the_client_arrive(ssh, user):
    flags = ("-o", "SetEnv=LANG=C.UTF-8 COLOUR=blue")
    done = ssh.run(user, "echo $LANG $COLOUR", flags=flags)
    assert done.stdout == b"C.UTF-8 blue\n"


class Screen:
    """A terminal with a client in it."""

    def __init__(self, command: list[str]):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "vt220"
            os.execvp(command[0], command)
        self.text = ""

    def resize(self, rows: int, columns: int) -> None:
        size = struct.pack("HHHH", rows, columns, 0, 0)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, size)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, seconds: float = 20) -> re.Match:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"no {pattern!r} in {self.text!r}") from None
        self.text = self.text[found.end() :]
        return found

    def end(self) -> int:
        """Waits for the client to end and returns its exit code."""
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:
                break
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)


def test_a_shell_on_a_terminal(ssh, user):
    screen = Screen(ssh.command(user))
    screen.resize(31, 97)
    screen.type("stty size; echo term=$TERM; tty; shopt login_shell\n")
    screen.expect(r"\r31 97\r\n")
    screen.expect("term=vt220")
    screen.expect("/dev/pts/")
    screen.expect(r"login_shell\s+on")
    screen.resize(40, 120)
    screen.type("sleep 0.3; stty size\n")
    screen.expect(r"\r40 120\r\n")
    screen.type("sleep 1000\n")
    time.sleep(0.5)
    screen.type("\x03")
    screen.type("echo code=$?\n")
    screen.expect(r"[\r\n]code=130")
    screen.type("exit 5\n")
    assert screen.end() == 5


def test_a_shell_without_a_terminal_reads_a_script(ssh, user):
    done = ssh.run(user, data=b"echo first\ncat <<X\nsecond\nX\nexit 4\n", flags=("-T",))
    assert (done.stdout, done.returncode) == (b"first\nsecond\n", 4)


@pytest.mark.parametrize("flags", [(), ("-tt",)], ids=["pipe", "terminal"])
def test_who_hangs_up_takes_the_process_along(ssh, user, sandbox, flags):
    with ssh.held(user, "exec sleep 4321", flags=flags) as process:
        runs = lambda: "sleep 4321" in sandbox.commands.run("ps -eo args").stdout  # noqa: E731
        until(runs, "the process runs", 20)
        process.kill()
        until(lambda: not runs(), "the process was told", 20)


def tree(directory: Path) -> Path:
    """Files worth copying."""
    (directory / "sub" / "empty").mkdir(parents=True)
    (directory / "sub" / "naïve name").write_bytes(os.urandom(300_000))
    (directory / "run.sh").write_text("#!/bin/sh\n")
    (directory / "run.sh").chmod(0o751)
    os.utime(directory / "run.sh", (1_600_000_000, 1_600_000_000))
    return directory


def same(one: Path, other: Path) -> None:
    assert (one / "sub/naïve name").read_bytes() == (other / "sub/naïve name").read_bytes()
    assert (other / "sub/empty").is_dir()
    stat = (other / "run.sh").stat()
    assert (stat.st_mode & 0o777, int(stat.st_mtime)) == (0o751, 1_600_000_000)


def test_scp_copies_both_ways(ssh, user, tmp_path):
    source = tree(tmp_path / "source")
    scp = ["scp", "-q", "-r", "-p", *ssh.options, "-P", str(ssh.port)]
    there = f"{user}@127.0.0.1:scp-tree"
    subprocess.run([*scp, source, there], check=True, timeout=60)
    subprocess.run([*scp, there, tmp_path / "back"], check=True, timeout=60)
    same(source, tmp_path / "back")
    missing = subprocess.run(
        [*scp, f"{user}@127.0.0.1:none", tmp_path], capture_output=True, timeout=60
    )
    assert missing.returncode != 0 and b"No such file" in missing.stderr


def test_sftp_does_what_its_commands_say(ssh, user, sandbox, tmp_path):
    (tmp_path / "local").write_bytes(b"content\n" * 100_000)
    batch = f"""
        mkdir sftp
        cd sftp
        put {tmp_path}/local one
        rename one two
        ln -s two link
        ln two hard
        chmod 640 two
        ls -l
        get link {tmp_path}/got
        df
        rm hard
        mkdir gone
        rmdir gone
        pwd
    """
    sftp = ["sftp", *ssh.options, "-P", str(ssh.port), "-b", "-", f"{user}@127.0.0.1"]
    done = subprocess.run(sftp, input=batch.encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, done
    assert (tmp_path / "got").read_bytes() == (tmp_path / "local").read_bytes()
    out = done.stdout.decode()
    assert re.search(r"-rw-r-----\s+2 .* 800000 .* two", out), out
    assert re.search(r"lrwxrwxrwx .* link", out), out
    assert "/home/user/sftp" in out
    listed = sandbox.commands.run("cd sftp && ls; readlink link").stdout.split()
    assert listed == ["link", "two", "two"]
    refused = subprocess.run(sftp, input=b"put /etc/hostname /etc/x\n", capture_output=True)
    assert refused.returncode != 0 and b"ermission denied" in refused.stderr


def test_rsync_copies_both_ways(ssh, user, tmp_path):
    source = tree(tmp_path / "source")
    rsync = ["rsync", "-a", "-e", " ".join(["ssh", *ssh.options, "-p", str(ssh.port)])]
    there = f"{user}@127.0.0.1:rsync-tree/"
    subprocess.run([*rsync, f"{source}/", there], check=True, timeout=60)
    back = tmp_path / "back"
    subprocess.run([*rsync, there, f"{back}/"], check=True, timeout=60)
    same(source, back)
    # Where a template has none, that is told.
    none = ["--rsync-path=no-such-rsync", f"{source}/", there]
    done = subprocess.run([*rsync, *none], capture_output=True, timeout=60)
    assert done.returncode != 0 and b"no-such-rsync: command not found" in done.stderr


def ask(port: int, path: str = "/") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as stream:
        stream.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
        return answer


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def inside(sandbox) -> int:
    """A port of the sandbox's loopback that serves files."""
    sandbox.commands.run("mkdir -p www && seq 200000 > www/big && echo hello > www/hi")
    sandbox.commands.run(
        "cd www && exec python3 -m http.server --bind 127.0.0.1 8765", background=True
    )
    listens = lambda: "127.0.0.1:8765" in sandbox.commands.run("ss -ltn").stdout  # noqa: E731
    until(listens, "the file server listens", 20)
    return 8765


def test_a_local_port_leads_inside(ssh, user, inside):
    port = free_port()
    flags = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"127.0.0.1:{port}:localhost:{inside}")
    with ssh.held(user, flags=flags):
        until(lambda: is_open(port), "the port is forwarded", 20)
        assert ask(port, "/hi").endswith(b"\r\n\r\nhello\n")
        expected = "".join(f"{n}\n" for n in range(1, 200_001)).encode()
        assert ask(port, "/big").partition(b"\r\n\r\n")[2] == expected
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(ask(port, "/hi"))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert len(results) == 8 and all(answer.endswith(b"hello\n") for answer in results)


def test_a_closed_port_inside_is_refused(ssh, user):
    done = ssh.run(user, flags=("-W", "localhost:1"))
    assert done.returncode == NOT_SERVED
    assert b"connect failed" in done.stderr.lower() or b"open failed" in done.stderr


def test_a_proxy_leads_inside_by_any_name_of_it(ssh, user, inside):
    port = free_port()
    with ssh.held(user, flags=("-N", "-D", f"127.0.0.1:{port}")):
        until(lambda: is_open(port), "the proxy listens", 20)
        curl = ["curl", "-sS", "--noproxy", "", "--socks5-hostname", f"127.0.0.1:{port}"]
        done = subprocess.run(
            [*curl, f"http://localhost:{inside}/hi"], capture_output=True, timeout=30
        )
        assert done.stdout == b"hello\n", done


def test_elsewhere_is_reached_from_inside(ssh, user):
    # A service that only sandboxes reach.
    request = b"GET /me/memory HTTP/1.0\r\nHost: events\r\n\r\n"
    done = ssh.run(user, flags=("-W", "192.0.2.1:80"), data=request)
    assert done.stdout.startswith(b"HTTP/1."), done


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"from outside " * 10_000
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_port_inside_leads_to_the_client(ssh, user, sandbox):
    server = HTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        outside = server.server_address[1]
        flags = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"0:127.0.0.1:{outside}")
        with ssh.held(user, flags=flags) as process:
            told = process.stderr.readline().decode()
            port = int(re.search(r"Allocated port (\d+)", told).group(1))
            fetch = f"curl -sS http://127.0.0.1:{port}/ | wc -c"
            for _ in range(3):
                assert sandbox.commands.run(fetch).stdout.strip() == "130000"
        closed = lambda: f":{port}" not in sandbox.commands.run("ss -ltn").stdout  # noqa: E731
        until(closed, "the port is not listened on any more", 20)
    finally:
        server.shutdown()


def test_a_long_lived_command_with_input_as_remote_editors_use_it(ssh, user, inside):
    port = free_port()
    with ssh.held(user, "bash", flags=("-T", "-D", f"127.0.0.1:{port}")) as process:
        for count in range(3):
            process.stdin.write(f"echo step{count}\n".encode())
            process.stdin.flush()
            assert process.stdout.readline() == b"step%d\n" % count
        curl = ["curl", "-sS", "--noproxy", "", "--socks5-hostname", f"127.0.0.1:{port}"]
        url = f"http://127.0.0.1:{inside}/hi"
        assert subprocess.run([*curl, url], capture_output=True).stdout == b"hello\n"
        process.stdin.write(b"exit 6\n")
        process.stdin.flush()
        assert process.wait(20) == 6


def test_an_api_key_is_a_password(ssh, user, tmp_path):
    asked = tmp_path / "ask"
    asked.write_text('#!/bin/sh\necho "$ANSWER"\n')
    asked.chmod(0o755)
    command = ["ssh", "-F", "none", "-o", "PreferredAuthentications=password"]
    command += ["-o", "NumberOfPasswordPrompts=1", *ssh.options[2:6]]
    command += ["-o", "StrictHostKeyChecking=yes", "-p", str(ssh.port), f"{user}@127.0.0.1", "echo in"]

    def attempt(password: str):
        variables = {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force", "ANSWER": password}
        return subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, timeout=30
        )

    assert attempt(env.API_KEY).stdout == b"in\n"
    wrong = attempt("e2b_" + "0" * 40)
    assert wrong.returncode == NOT_SERVED and b"Permission denied" in wrong.stderr


def test_who_is_not_known_is_not_let_in(ssh, user, tmp_path, api):
    stranger = Ssh(tmp_path, api.get("/ssh").json())
    done = stranger.run(user, "true")
    assert done.returncode == NOT_SERVED and b"Permission denied" in done.stderr
    added = api.post("/ssh-keys", json={"publicKey": stranger.public, "name": "stranger"})
    assert added.status_code == 201 and added.json()["lastUsedAt"] is None
    assert stranger.run(user, "true").returncode == 0
    listed = {key["name"]: key for key in api.get("/ssh-keys").json()}
    assert listed["stranger"]["lastUsedAt"] is not None
    assert api.delete(f"/ssh-keys/{added.json()['keyID']}").status_code == 204
    assert stranger.run(user, "true").returncode == NOT_SERVED


@pytest.mark.parametrize("name", ["nosuchsandbox", "root", "No-Such"])
def test_what_is_wrong_is_told_on_standard_error(ssh, name):
    done = ssh.run(name, "true")
    assert done.returncode == NOT_SERVED
    assert done.stderr.startswith(b"warren: "), done.stderr
    expected = b"the user name must be the id" if name == "No-Such" else b"was not found"
    assert expected in done.stderr


def test_a_paused_sandbox_is_resumed(ssh, own_sandbox):
    user = own_sandbox.sandbox_id
    assert ssh.run(user, "echo kept > note").returncode == 0
    own_sandbox.pause()
    assert ssh.run(user, "cat note").stdout == b"kept\n"
    assert Sandbox.get_info(user).state == "running"


def test_a_pause_ends_sessions_with_the_reason(ssh, own_sandbox):
    with ssh.held(own_sandbox.sandbox_id, "echo ready; sleep 1000") as process:
        assert process.stdout.readline() == b"ready\n"
        own_sandbox.pause()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == NOT_SERVED
        assert b"was paused" in errors, errors
    # Nobody is connected any more who could have resumed it.
    assert Sandbox.get_info(own_sandbox.sandbox_id).state == "paused"


def test_a_kill_ends_sessions_with_the_reason(ssh, own_sandbox):
    with ssh.held(own_sandbox.sandbox_id, "echo ready; sleep 1000") as process:
        assert process.stdout.readline() == b"ready\n"
        own_sandbox.kill()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == NOT_SERVED
        assert b"was killed" in errors or b"has ended" in errors, errors


def test_keys_are_checked(api, ssh):
    def add(key, **more):
        return api.post("/ssh-keys", json={"publicKey": key, **more})

    assert add("nonsense").status_code == 400
    assert add(ssh.public, name="").status_code == 400
    assert add(ssh.public).status_code == 409
    assert api.delete("/ssh-keys/nonsense").status_code == 404
    weak = subprocess.run(
        "d=$(mktemp -d) && ssh-keygen -q -t rsa -b 1024 -N '' -f $d/k && cat $d/k.pub && rm -r $d",
        shell=True,
        capture_output=True,
    )
    assert "2048" in add(weak.stdout.decode()).json()["message"]


def test_the_command_line_connects_without_keys(user, tmp_path):
    binary = env.optional("WARREN_BIN")
    own = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    server = {"E2B_API_URL": env.API_URL, "E2B_API_KEY": env.API_KEY}

    def warren(*words: str):
        return subprocess.run(
            [binary, *words], env={**own, **server}, capture_output=True, text=True, timeout=60
        )

    done = warren("ssh", user, "echo hi; exit 3")
    assert (done.stdout, done.returncode) == ("hi\n", 3), done
    assert warren("ssh", "--user", "root", user, "--", "whoami").stdout == "root\n"
    printed = warren("ssh", "--print", user).stdout
    assert printed.startswith("ssh -p ") and f"{user}@127.0.0.1" in printed

    keygen = ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "laptop"]
    (tmp_path / ".ssh").mkdir()
    subprocess.run([*keygen, "-f", tmp_path / ".ssh/id_ecdsa"], check=True)
    assert warren("ssh-key", "add").stdout.startswith("Added laptop (SHA256:")
    assert "laptop" in warren("ssh-key", "list").stdout
    keys = json.loads(warren("ssh-key", "list", "--json").stdout)
    assert [key["name"] for key in keys].count("laptop") == 1
    assert warren("ssh-key", "remove", "laptop").returncode == 0
    assert warren("ssh-key", "remove", "laptop").returncode == 1


def test_a_flood_of_connections_leaves_the_server_answering(ssh, user):
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", ssh.port)))
            stream.settimeout(10)
            held.append(stream)
        refused = 0
        for stream in held:
            with contextlib.suppress(OSError):
                refused += stream.recv(16) == b""
        assert refused > 0
    until(lambda: ssh.run(user, "true").returncode == 0, "it lets people in again", 20)


def test_what_a_sandbox_floods_is_held_back(ssh, user, sandbox):
    with ssh.held(user, "exec yes floods") as process:
        assert process.stdout.read(1_000_000).startswith(b"floods\n")
        # Nobody reads on: the process stands still instead of filling the server's memory.
        until(
            lambda: "pipe" in sandbox.commands.run("cat /proc/$(pgrep -x yes)/wchan").stdout
            or sandbox.commands.run("ps -o stat= -C yes").stdout.strip().startswith("S"),
            "the process waits",
            20,
        )
        process.send_signal(signal.SIGKILL)
