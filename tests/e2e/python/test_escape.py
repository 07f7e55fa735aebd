"""Root inside a sandbox tries to get out. Every attempt must fail.

Attempts are canaries: if isolation were broken they would be noticed, not harmful. What a
successful attempt would leave is checked on the host where it can be.
"""

import contextlib
import json
import os
import subprocess
import uuid
from pathlib import Path

import httpx
import pytest
from e2b import Sandbox, SandboxException

from support import env, host
from support.env import optional

SYSCALLS = """
import ctypes, errno, json, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
  "x86_64": dict(ptrace=101, mount=165, umount2=166, unshare=272, setns=308, bpf=321, keyctl=250,
    add_key=248, kexec_load=246, reboot=169, init_module=175, finit_module=313, delete_module=176,
    perf_event_open=298, open_by_handle_at=304, pivot_root=155, swapon=167, syslog=103,
    userfaultfd=323, io_uring_setup=425, move_mount=429, fsopen=430, open_tree=428, acct=163,
    quotactl=179, process_vm_readv=310, iopl=172),
  "aarch64": dict(ptrace=117, mount=40, umount2=39, unshare=97, setns=268, bpf=280, keyctl=219,
    add_key=217, kexec_load=104, reboot=142, init_module=105, finit_module=273, delete_module=106,
    perf_event_open=241, open_by_handle_at=265, pivot_root=41, swapon=224, syslog=116,
    userfaultfd=282, io_uring_setup=425, move_mount=429, fsopen=430, open_tree=428, acct=89,
    quotactl=60, process_vm_readv=270, iopl=-1),
}[platform.machine()]
def call(name, *args):
    args = [a.encode() if isinstance(a, str) else a for a in args]
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *args)
    return 0 if result >= 0 else ctypes.get_errno()
buffer = ctypes.create_string_buffer(4096)
"""

#: A call by a privileged process would succeed or fail with another error than these.
DENIED = {"EPERM", "EACCES", "ENOSYS"}

CALLS = {
    "mount a tmpfs": 'call("mount", "none", "/mnt", "tmpfs", 0, None)',
    "mount proc": 'call("mount", "proc", "/mnt", "proc", 0, None)',
    "bind the root": 'call("mount", "/", "/mnt", None, 4096, None)',
    "remount the root": 'call("mount", None, "/", None, 32 | 4096, None)',
    "mount cgroup": 'call("mount", "cgroup", "/mnt", "cgroup", 0, "memory")',
    "mount cgroup2": 'call("mount", "cgroup2", "/mnt", "cgroup2", 0, None)',
    "mount debugfs": 'call("mount", "debugfs", "/mnt", "debugfs", 0, None)',
    "unmount proc": 'call("umount2", "/proc", 2)',
    "the new mount calls": 'call("fsopen", "tmpfs", 0)',
    "clone a mount": 'call("open_tree", -100, "/", 1)',
    "move a mount": 'call("move_mount", -100, "/proc", -100, "/mnt", 0)',
    "pivot the root": 'call("pivot_root", "/", "/mnt")',
    "a user namespace": 'call("unshare", 0x10000000)',
    "a mount namespace": 'call("unshare", 0x20000)',
    "a network namespace": 'call("unshare", 0x40000000)',
    "join a namespace": 'call("setns", os.open("/proc/1/ns/mnt", 0), 0)',
    "load a module": 'call("init_module", None, 0, "")',
    "load a module file": 'call("finit_module", -1, "", 0)',
    "unload a module": 'call("delete_module", "warren_no_such_module", 2048)',
    # Without the right the kernel refuses before it looks at these nonsense arguments.
    "reboot": 'call("reboot", 0, 0, 0, None)',
    "kexec": 'call("kexec_load", 0, 0, None, 0xFFFF)',
    "bpf": 'call("bpf", 0, buffer, 72)',
    "perf events": 'call("perf_event_open", buffer, -1, 0, -1, 0)',
    "the user keyring": 'call("keyctl", 0, -4, 0, 0, 0)',
    "add a key": 'call("add_key", "user", "warren", "x", 1, -4)',
    "open by handle": 'call("open_by_handle_at", -100, buffer, 0)',
    "swap": 'call("swapon", "/warren-no-such-file", 0)',
    "the kernel log": 'call("syslog", 3, buffer, 4096)',
    "clear the kernel log": 'call("syslog", 9, None, 0)',
    "user faults": 'call("userfaultfd", 0)',
    "io_uring": 'call("io_uring_setup", 1, buffer)',
    "accounting": 'call("acct", "/warren-no-such-file")',
    "port access": 'call("iopl", 3)',
}


@pytest.fixture(scope="module")
def root(sandbox):
    """Runs a shell command as root inside and returns its output, whatever its exit."""

    def run(command: str, timeout: float = 40) -> str:
        result = sandbox.commands.run(f"( {command} ) 2>&1 || true", user="root", timeout=timeout)
        return result.stdout

    return run


@pytest.fixture(scope="module")
def python(sandbox, root):
    """Runs Python as root inside."""

    def run(code: str, timeout: float = 40) -> str:
        path = f"/tmp/{uuid.uuid4().hex}.py"
        sandbox.files.write(path, code)
        return root(f"python3 {path}", timeout)

    return run


@pytest.fixture(autouse=True)
def _the_host_goes_on(api):
    yield
    assert api.get("/health").is_success
    with Sandbox.create(timeout=30) as fresh:
        assert fresh.commands.run("echo fresh").stdout == "fresh\n"


@pytest.fixture
def canary(tmp_path):
    """A file on the host that nobody inside may read or change."""
    path = Path("/var/tmp") / f"warren-canary-{uuid.uuid4().hex}"
    path.write_text(f"secret-{uuid.uuid4().hex}")
    before = (path.read_text(), path.stat().st_mode, path.stat().st_uid)
    yield path
    assert (path.read_text(), path.stat().st_mode, path.stat().st_uid) == before
    path.unlink()


def test_all_privileged_calls_are_refused(python):
    attempts = "".join(f"attempts[{name!r}] = {call}\n" for name, call in CALLS.items())
    report = "print(json.dumps({n: errno.errorcode.get(e, 'DONE') for n, e in attempts.items()}))"
    output = python(f"{SYSCALLS}\nattempts = {{}}\n{attempts}{report}")
    found = json.loads(output.strip().splitlines()[-1])
    assert set(found) == set(CALLS)
    assert {name: error for name, error in found.items() if error not in DENIED} == {}


def test_the_clock_can_not_be_set(python):
    # Set to what it is: harmless if it worked.
    output = python("import time; time.clock_settime(time.CLOCK_REALTIME, time.time())")
    assert "PermissionError" in output


def paths_to(canary: Path) -> list[str]:
    return [
        f"{canary}",
        f"/proc/1/root{canary}",
        f"/proc/self/root{canary}",
        f"/proc/1/cwd/{'../' * 12}{canary}",
        f"{'/..' * 30}{canary}",
        f"/proc/self/fd/../../..{canary}",
        f"/dev/fd/../../../..{canary}",
    ]


def test_host_files_are_not_read_by_paths(root, canary):
    secret = canary.read_text()
    for path in paths_to(canary):
        assert secret not in root(f"cat {path}")
    found = root(f"find / -xdev -name {canary.name}; ls -d /proc/[0-9]*/root{canary} 2>/dev/null")
    assert found == ""
    assert secret not in root(f"grep -rs {secret} /proc/[0-9]*/root/var/tmp")


def test_host_files_are_not_reached_through_the_file_api(sandbox, root, canary):
    secret = canary.read_text()
    attempts = []
    for number, path in enumerate(paths_to(canary)):
        link = f"/tmp/link-{number}"
        root(f"ln -sfn '{path}' {link}; ln -sfn '{Path(path).parent}' {link}-dir")
        attempts += [path, link, f"{link}-dir/{canary.name}"]
    for attempt in attempts:
        try:
            assert secret not in sandbox.files.read(attempt)
        except SandboxException:
            continue
    for attempt in attempts:
        try:
            sandbox.files.write(attempt, "overwritten", user="root")
        except SandboxException:
            continue
    for attempt in attempts:
        sandbox.files.remove(attempt)
    # The fixture checks that the host's file is there and what it was.


def test_host_processes_are_not_seen_or_traced(python, root):
    mark = f"host-canary-{uuid.uuid4().hex}"
    process = subprocess.Popen(["/bin/bash", "-c", f"exec -a {mark} sleep 60"])
    try:
        assert mark not in root("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert mark not in root("cat /proc/[0-9]*/environ | tr '\\0' ' '")
        pids = [process.pid, os.getpid(), *([int(p)] if (p := optional("WARREN_PID")) else [])]
        code = f"""{SYSCALLS}
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
room = ctypes.create_string_buffer(8)
vector = ctypes.byref(Vector(ctypes.addressof(room), 8))
for pid in {pids}:
    traced = call("ptrace", 16, pid, None, None)
    read = call("process_vm_readv", pid, vector, 1, vector, 1, 0)
    try:
        os.kill(pid, 0); signalled = "DONE"
    except OSError as error:
        signalled = error.errno
    print(pid, errno.errorcode.get(traced, "DONE"), errno.errorcode.get(read, "DONE"), signalled)
"""
        lines = python(code).strip().splitlines()
        assert len(lines) == len(pids), lines
        for line in lines:
            _, traced, read, signalled = line.split()
            assert traced in {"EPERM", "ESRCH", "ENOSYS"}, line
            assert read in {"EPERM", "ESRCH", "ENOSYS"}, line
            assert signalled == "3", line
    finally:
        process.kill()
        process.wait()


def test_devices_are_not_made(root):
    partitions = [
        line.split()[:2] for line in Path("/proc/partitions").read_text().splitlines()[2:] if line
    ]
    for major, minor in (partitions + [["8", "0"], ["1", "1"], ["259", "0"]])[:20]:
        root(f"rm -f /tmp/node; mknod /tmp/node b {major} {minor}")
        assert "READ" not in root("head -c 1 /tmp/node >/dev/null && echo READ")
    assert "READ" not in root("mknod /tmp/mem c 1 1; head -c 1 /tmp/mem > /dev/null && echo READ")
    assert "READ" not in root("mknod /tmp/kmsg c 1 11; timeout 2 head -c 1 /tmp/kmsg && echo READ")


@pytest.mark.parametrize(
    "path",
    [
        "/dev/mem",
        "/dev/kmem",
        "/dev/port",
        "/dev/kmsg",
        "/dev/kvm",
        "/dev/sda",
        "/dev/vda",
        "/dev/nvme0n1",
        "/dev/loop0",
        "/dev/loop-control",
        "/dev/mapper/control",
        "/proc/kcore",
        "/proc/kmsg",
        "/dev/vhost-net",
    ],
)
def test_devices_are_not_there(root, path):
    assert "OPEN" not in root(f"exec 3< {path} && echo OPEN")
    assert "OPEN" not in root(f"test -e {path} && exec 3<> {path} && echo OPEN")


def test_the_kernel_log_is_closed(root):
    output = root("dmesg -s 4096 && echo OPEN; cat /dev/kmsg & sleep .3; kill $!")
    assert "OPEN" not in output and "Linux version" not in output


def test_modules_are_not_loaded(root):
    assert "LOADED" not in root("modprobe dummy && echo LOADED; insmod /tmp/none.ko && echo LOADED")


def writable_below(python, *tops: str) -> list[str]:
    """Files that root inside may open for writing. Opening changes nothing."""
    code = f"""
import os
seen = 0
for top in {tops!r}:
    for folder, folders, files in os.walk(top):
        for name in files:
            seen += 1
            if seen > 60000: raise SystemExit
            path = os.path.join(folder, name)
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
            except OSError:
                continue
            print("WRITABLE", path)
"""
    lines = python(code, 90).splitlines()
    return [line.split(" ", 1)[1] for line in lines if line.startswith("WRITABLE")]


def test_kernel_settings_are_not_writable(python):
    # These belong to the sandbox's own namespaces; writing them touches nobody else.
    own = ("/proc/sys/net/", "/proc/sys/user/", "/proc/sys/fs/mqueue/")
    ipc = ("sem", "shm", "msg", "auto_msgmni", "hostname", "domainname", "ns_last_pid")
    found = [
        path
        for path in writable_below(python, "/proc/sys")
        if not path.startswith(own) and not path.removeprefix("/proc/sys/kernel/").startswith(ipc)
    ]
    assert found == []


def test_the_device_tree_is_not_writable(python):
    assert writable_below(python, "/sys") == []


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/vm/panic_on_oom",
        "/proc/sys/fs/binfmt_misc/register",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/proc/acpi/wakeup",
        "/proc/irq/default_smp_affinity",
        "/proc/mtrr",
    ],
)
def test_host_triggers_are_closed(root, path):
    assert "OPEN" not in root(f"exec 3>> {path} && echo OPEN")


def release_agents():
    """Groups of other tests come and go meanwhile, which this walk takes."""
    walk = os.walk("/sys/fs/cgroup")
    return [Path(top) / "release_agent" for top, _, files in walk if "release_agent" in files]


def test_cgroups_give_no_way_out(root):
    before = release_agents()
    mark = f"/tmp/warren-escape-{uuid.uuid4().hex}"
    output = root(
        f"for d in $(find /sys/fs/cgroup -maxdepth 4 -type d 2>/dev/null | head -200); do"
        f" echo {mark} 2>/dev/null > $d/release_agent && echo AGENT $d;"
        f" echo 1 2>/dev/null > $d/notify_on_release && echo NOTIFY $d;"
        f" mkdir $d/escape 2>/dev/null && echo MADE $d && rmdir $d/escape;"
        f" echo max 2>/dev/null > $d/pids.max && echo PIDS $d;"
        f" echo -1 2>/dev/null > $d/memory.limit_in_bytes && echo MEMORY $d;"
        f" echo max 2>/dev/null > $d/memory.max && echo MEMORY $d; done"
    )
    assert not [
        line
        for line in output.splitlines()
        if line.split()[0] in ("AGENT", "NOTIFY", "MADE", "PIDS", "MEMORY")
    ]
    for agent in before:
        with contextlib.suppress(FileNotFoundError):
            assert mark not in agent.read_text()


def test_limits_can_not_be_raised(python):
    code = """
import os, resource
for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC"):
    soft, hard = resource.getrlimit(getattr(resource, name))
    if hard == resource.RLIM_INFINITY: continue
    try:
        resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1)); print("RAISED", name)
    except (ValueError, OSError): pass
try:
    os.nice(-10); print("RAISED nice")
except OSError: pass
try:
    os.write(os.open("/proc/self/oom_score_adj", os.O_WRONLY), b"-1000"); print("RAISED oom")
except OSError: pass
try:
    os.setuid(70000); print("RAISED uid")
except OSError: pass
"""
    assert "RAISED" not in python(code)


DIAL_ALL = """
import concurrent.futures, socket, sys
targets = [t.rsplit(",", 1) for t in sys.argv[1:]]
def dial(target):
    address, port = target[0], int(target[1])
    try:
        with socket.create_connection((address, port), 3) as s:
            s.settimeout(3)
            s.sendall(b"GET /health HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n")
            got = s.recv(200)
            return f"{address},{port} ANSWERED {got[:40]!r}" if got else f"{address},{port} closed"
    except OSError as error:
        return f"{address},{port} {error}"
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print("\\n".join(pool.map(dial, targets)))
"""


def reach(sandbox, targets: list[tuple[str, int]]) -> list[str]:
    """Which of the targets answer anything to root inside."""
    sandbox.files.write("/tmp/dial_all.py", DIAL_ALL)
    names = " ".join(f"'{address},{port}'" for address, port in targets)
    output = sandbox.commands.run(f"python3 /tmp/dial_all.py {names}", user="root", timeout=60)
    assert len(output.stdout.splitlines()) == len(targets), output
    return [line for line in output.stdout.splitlines() if "ANSWERED" in line]


def neighbours(sandbox) -> list[str]:
    """Addresses around the sandbox's own: gateways, other sandboxes, the host's end."""
    own = [a for a in sandbox.commands.run("hostname -I || true").stdout.split() if "." in a]
    gateway = sandbox.commands.run(
        "awk '$2==\"00000000\" {print $3}' /proc/net/route"
    ).stdout.split()
    found = {".".join(str(b) for b in reversed(bytes.fromhex(g))) for g in gateway}
    for address in own:
        parts = [int(part) for part in address.split(".")]
        number = int.from_bytes(bytes(parts), "big")
        for offset in range(-20, 21):
            near = ".".join(str(b) for b in (number + offset).to_bytes(4, "big"))
            found |= {near}
    return sorted(found - set(own))


def test_the_hosts_ports_are_closed(sandbox):
    with host.Listener() as listener:
        addresses = host.addresses() + neighbours(sandbox)
        # The listener answers here, so silence below means isolation.
        assert httpx.get(f"http://127.0.0.1:{listener.port}", trust_env=False).text == "host-port"
        listener.reached.clear()
        assert reach(sandbox, [(a, listener.port) for a in addresses]) == []
        assert listener.reached == []


def test_the_servers_own_port_is_closed(sandbox):
    port = httpx.URL(env.API_URL).port
    addresses = [*host.addresses(), *neighbours(sandbox), "127.0.0.1", "localhost", "::1"]
    assert reach(sandbox, [(a, port) for a in addresses]) == []


def test_other_sandboxes_agents_are_closed(sandbox):
    with Sandbox.create(timeout=60) as other:
        own = other.commands.run("hostname -I || true").stdout.split()
        mine = sandbox.commands.run("hostname -I || true").stdout.split()
        addresses = sorted(set(own) - set(mine)) + neighbours(sandbox)
        assert reach(sandbox, [(a, 49983) for a in addresses]) == []


def test_metadata_services_are_closed(sandbox):
    targets = [
        (a, p) for a in ("169.254.169.254", "169.254.170.2", "100.100.100.200") for p in (80, 1338)
    ]
    assert reach(sandbox, [*targets, ("fd00:ec2::254", 80)]) == []


def test_another_sandboxs_environment_is_closed(root):
    secret = uuid.uuid4().hex
    with Sandbox.create(timeout=60, envs={"SECRET": secret}) as other:
        other.commands.run("sleep 60", background=True)
        other.files.write("/tmp/mine", secret)
        assert secret not in root("cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
        assert secret not in root(f"grep -rls {secret} /tmp /run /var/tmp /dev/shm")


def test_the_agents_token_is_not_in_reach(sandbox, api, root):
    token = api.get(f"/sandboxes/{sandbox.sandbox_id}").json()["envdAccessToken"]
    # A pattern that does not match its own text, so that the search does not find itself.
    head, letter, tail = token[:10], token[10], token[11:]
    output = root(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null"
        f" | tr '\\0' '\\n' | grep -c '{head}[{letter}]{tail}'"
    )
    assert output.strip() == "0"


def test_the_agents_program_can_not_be_replaced(root):
    output = root(
        "for f in /proc/[0-9]*/exe; do readlink $f | grep -qi envd || continue;"
        " t=$(readlink $f); (echo x >> $f) && echo WROTE $f;"
        " test -e $t && (echo x >> $t) && echo WROTE $t; done;"
        " (echo x >> /proc/1/exe) && echo WROTE 1"
    )
    assert "WROTE" not in output
