"""Ordinary work inside a sandbox: packages, servers, repositories, limits."""

import hashlib

import pytest
from e2b import GitAuthException, NotEnoughSpaceException, Sandbox

from support import env
from support.env import host_of
from support.wait import until

HOST_CA = "/etc/ssl/certs/ca-certificates.crt"


def test_sudo_asks_for_nothing(sandbox):
    assert sandbox.commands.run("sudo -n id -u").stdout == "0\n"
    assert sandbox.commands.run("sudo -n su - user -c whoami").stdout == "user\n"
    assert sandbox.commands.run("whoami; groups", user="root").stdout.startswith("root\n")


@pytest.mark.timeout(180)
def test_apt_installs_a_package(own_sandbox):
    own_sandbox.commands.run(
        "sudo apt-get -qq update && sudo DEBIAN_FRONTEND=noninteractive apt-get -qqy install hello",
        timeout=170,
    )
    assert own_sandbox.commands.run("hello").stdout == "Hello, world!\n"


def test_pip_installs_a_package(own_sandbox):
    # The machine may reach its index through a private authority.
    with open(HOST_CA, "rb") as bundle:
        own_sandbox.files.write("/tmp/ca.pem", bundle.read())
    own_sandbox.commands.run(
        "python3 -m pip install -q --user --break-system-packages --cert /tmp/ca.pem six",
        timeout=100,
    )
    assert own_sandbox.commands.run("python3 -c 'import six; print(six.PY3)'").stdout == "True\n"


def test_a_virtual_environment(sandbox, folder):
    sandbox.commands.run(f"python3 -m venv --without-pip {folder}/venv")
    result = sandbox.commands.run(f"{folder}/venv/bin/python -c 'import sys; print(sys.prefix)'")
    assert result.stdout == f"{folder}/venv\n"


def test_git_commits_and_clones(sandbox, folder):
    sandbox.commands.run(
        "git init -q -b main repo && cd repo && git config user.name N && git config user.email e@x"
        " && echo one > f && git add f && git commit -qm first && git clone -q . ../clone",
        cwd=folder,
    )
    assert sandbox.files.read(f"{folder}/clone/f") == "one\n"
    log = sandbox.commands.run("git -C clone log --oneline", cwd=folder).stdout
    assert log.endswith(" first\n") and len(log.splitlines()) == 1


def test_the_sdks_git_helper(sandbox, folder):
    git = sandbox.git
    git.init(f"{folder}/hub", bare=True, initial_branch="main")
    git.clone(f"{folder}/hub", f"{folder}/work")
    git.configure_user("Warren Tester", "tester@warren.example")
    sandbox.files.write(f"{folder}/work/a.txt", "a")
    assert [f.name for f in git.status(f"{folder}/work").file_status] == ["a.txt"]
    git.add(f"{folder}/work")
    git.commit(f"{folder}/work", "first")
    git.push(f"{folder}/work", remote="origin", branch="main")
    git.create_branch(f"{folder}/work", "topic")
    assert git.branches(f"{folder}/work").current_branch == "topic"
    git.clone(f"{folder}/hub", f"{folder}/again")
    assert sandbox.files.read(f"{folder}/again/a.txt") == "a"
    assert git.get_config("user.name") == "Warren Tester"


def test_a_private_repository_fails_without_a_prompt(sandbox):
    # A server inside the sandbox that wants a password plays the private host.
    server = """
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 7401), H).serve_forever()
"""
    sandbox.files.write("/tmp/private.py", server)
    handle = sandbox.commands.run("python3 /tmp/private.py", background=True, timeout=0)
    sandbox.commands.run(
        "for i in $(seq 100); do curl -so /dev/null localhost:7401 && exit; sleep .05; done; exit 1"
    )
    with pytest.raises(GitAuthException):
        sandbox.git.clone("http://localhost:7401/private.git", "/tmp/never", timeout=20)
    handle.kill()


@pytest.mark.parametrize(
    "port,command",
    [
        (8080, "python3 -m http.server 8080"),
        (8081, "node -e \"require('http').createServer((q,r)=>r.end('node')).listen(8081)\""),
    ],
)
def test_servers_are_reached_both_ways(sandbox, edge, port, command):
    handle = sandbox.commands.run(command, background=True, timeout=0)
    by_name = {"host": host_of(port, sandbox.sandbox_id)}
    by_header = {"e2b-sandbox-id": sandbox.sandbox_id, "e2b-sandbox-port": str(port)}
    for headers in (by_name, by_header):
        until(lambda h=headers: edge.get("/", headers=h).status_code == 200, command, 10)
    handle.kill()


def test_a_user_may_ping_and_bind_low_ports(sandbox):
    assert "1 received" in sandbox.commands.run("ping -c1 -W2 127.0.0.1").stdout
    script = "import socket; s=socket.socket(); s.bind(('0.0.0.0', 80)); print('bound')"
    assert sandbox.commands.run(f'python3 -c "{script}"').stdout == "bound\n"


def test_names_and_places(sandbox):
    assert sandbox.commands.run("hostname").stdout.strip()
    assert sandbox.commands.run("getent hosts $(hostname)").stdout.strip()
    assert sandbox.commands.run("getent hosts localhost").stdout.split()[0] in ("127.0.0.1", "::1")
    for path, mode, owner in (("/tmp", 0o777, "root"), ("/home/user", None, "user")):
        info = sandbox.files.get_info(path)
        assert info.owner == owner and (mode is None or info.mode == mode), info
    sandbox.commands.run("echo x > /tmp/x && touch /usr/local/writable && rm /usr/local/writable")


@pytest.mark.parametrize(
    "command",
    [
        "python3 -c 'import multiprocessing as m; print(m.Pool(2).map(abs, [-1, -2]))'",
        "python3 -c 'from multiprocessing.shared_memory import SharedMemory as S;"
        " S(create=True, size=9).unlink()'",
        "node -e 'process.exit(require(`fs`).readFileSync(`/etc/passwd`).length ? 0 : 1)'",
        "mkfifo /tmp/f$$ && (echo x > /tmp/f$$ &) && read v < /tmp/f$$ && test $v = x",
        "sudo -n chown 4321:4321 $(mktemp) && tar -C /etc -cf - passwd | tar -tf -",
        "exec 3<>/dev/ptmx && test -w /dev/shm && head -c 16 /dev/urandom | wc -c",
        "curl --version && jq --version && tput -T xterm cols",
    ],
)
def test_common_facilities(sandbox, command):
    assert sandbox.commands.run(command).exit_code == 0


def test_ten_megabytes_of_output_are_intact(sandbox):
    result = sandbox.commands.run("seq 1 1500000", timeout=60)
    expected = "".join(f"{n}\n" for n in range(1, 1500001))
    assert (
        hashlib.sha256(result.stdout.encode()).digest()
        == hashlib.sha256(expected.encode()).digest()
    )


def test_processes_are_reaped(sandbox):
    sandbox.commands.run("for i in $(seq 20); do (sleep 0.05 &) ; done")

    def clean() -> bool:
        states = sandbox.commands.run(
            "cat /proc/[0-9]*/stat 2>/dev/null | awk '{print $3}' || true"
        ).stdout
        return "Z" not in states

    until(clean, "no zombie is left", 5)


def test_a_full_disk_is_told_apart(own_sandbox, api):
    detail = api.get(f"/sandboxes/{own_sandbox.sandbox_id}").json()
    # All of the disk, blocks reserved for root included, but for a small pad.
    own_sandbox.commands.run(
        "cd /home/user && head -c 4M /dev/zero > pad && fallocate -l $(($(stat -fc '%a*%S' /)"
        " - 4194304)) fill; dd if=/dev/zero of=rest bs=1M status=none; rm pad",
        user="root",
    )
    with pytest.raises(NotEnoughSpaceException, match="not enough disk space available"):
        own_sandbox.files.write("/home/user/more", b"x" * (80 << 20))
    answer = env.client(env.SANDBOX_URL).post(
        "/files?path=/home/user/raw",
        content=b"x" * (80 << 20),
        headers={
            "content-type": "application/octet-stream",
            "x-access-token": detail["envdAccessToken"],
            "e2b-sandbox-id": own_sandbox.sandbox_id,
            "e2b-sandbox-port": "49983",
        },
    )
    assert answer.status_code == 507 and answer.json()["code"] == 507
    own_sandbox.commands.run("rm -f fill rest more raw", cwd="/home/user", user="root")
    own_sandbox.files.write("/home/user/again", "room")
    assert own_sandbox.files.read("/home/user/again") == "room"


def test_sandboxes_share_nothing():
    with Sandbox.create(timeout=60) as one, Sandbox.create(timeout=60) as two:
        one.commands.run(
            "echo secret > /tmp/mine; sudo sh -c 'echo bad >> /etc/hosts; echo x > /dev/shm/x'"
        )
        assert not two.files.exists("/tmp/mine") and not two.files.exists("/dev/shm/x")
        assert "bad" not in two.files.read("/etc/hosts")
        marker = one.commands.run("exec -a marker-of-one sleep 60", background=True)
        seen = two.commands.run(
            "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true", user="root"
        )
        assert "marker-of-one" not in seen.stdout
        marker.kill()
