"""Packages: made by the repository's chore, installed on a machine without a toolchain.

The programs in them are those under test; the slow test builds the static one.
"""

import re
import shutil
import signal
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest
from e2b import Sandbox

from support import host
from support.env import optional
from support.machine import Machine
from support.wait import until

ROOT = Path(__file__).resolve().parents[3]
WARREN = optional("WARREN_BIN")
LAYERS = optional("WARREN_LAYERS_DIR")

pytestmark = [
    pytest.mark.skipif(WARREN is None or LAYERS is None, reason="no program or no layers"),
    pytest.mark.alone,
    pytest.mark.timeout(600),
]


def package(out: Path, *flags) -> Path:
    chore = Path(WARREN).parent / "xtask"
    subprocess.run([chore, "package", "--out", out, *flags], check=True, cwd=ROOT, timeout=3600)
    return out


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """Both packages, around the program under test."""
    directory = tmp_path_factory.mktemp("packages")
    program = directory / "warren"
    subprocess.run(["strip", "-o", program, WARREN], check=True)
    return package(directory / "out", "--program", program)


@pytest.fixture
def machine(tmp_path_factory):
    """A machine that nothing of a server is left of at the end."""
    # Not below a place that pytest keeps for three runs.
    directory = tmp_path_factory.mktemp("machine")
    made: list[Machine] = []

    def make(**kwargs) -> Machine:
        made.append(Machine(directory / str(len(made)), layers=Path(LAYERS), **kwargs))
        return made[-1]

    yield make
    for one in made:
        try:
            clear(one)
        finally:
            one.close()
            shutil.rmtree(one.directory)


def clear(one: Machine) -> None:
    """Ends what a failed test left of a server."""
    if one.server and one.server.poll() is None:
        one.signal(signal.SIGKILL)
    for program in ("/opt/warren/bin/warren", "/usr/bin/warren", "/usr/local/bin/warren"):
        if one.ran("test", "-e", f"{one.data}/warren.db") and one.ran("test", "-x", program):
            one.run(program, "uninstall", "--yes", "--data-dir", one.data, seconds=500)


def unpacked(packages: Path, machine: Machine) -> str:
    """Unpacks the tarball on a machine, and returns its program there."""
    [tarball] = packages.glob("warren-*.tar.gz")
    place = machine.disk / "opt"
    with tarfile.open(tarball) as archive:
        archive.extractall(place, filter="tar")
    [directory] = place.iterdir()
    # The overlay's layers must not be changed from outside, so it is made new inside.
    machine.run("cp", "-a", f"/opt/{directory.name}", "/opt/warren")
    return "/opt/warren/bin/warren"


def works(machine: Machine) -> None:
    """The official client runs code in a sandbox of the machine's server."""
    with Sandbox.create("base", timeout=120, **machine.options) as sandbox:
        code = "import platform; print(6 * 7, platform.system())"
        assert sandbox.commands.run(f'python3 -c "{code}"').stdout == "42 Linux\n"
        sandbox.files.write("/home/user/x", "kept")
        assert sandbox.files.read("/home/user/x") == "kept"


def test_the_tarball_runs_where_there_is_no_toolchain(packages, machine):
    one = machine()
    program = unpacked(packages, one)
    assert not any(one.ran("which", tool) for tool in ("cargo", "rustc", "gcc", "mmdebstrap"))
    held = {"bin/warren", "warren.service", "warren.default", "README.md", "docs/install.md", "LICENSE"}
    assert all(one.ran("test", "-s", f"/opt/warren/{name}") for name in held)
    one.up(program, "--layers-dir", "/layers")
    works(one)
    kept = Sandbox.create("base", timeout=120, **one.options)
    assert one.down() == 0
    # Sandboxes outlive the server, and what is uninstalled ends them.
    one.up(program, "--layers-dir", "/layers")
    assert kept.is_running()
    assert one.down() == 0
    assert one.run(program, "uninstall", "--yes", "--data-dir", one.data).startswith("Ended all")
    assert not one.ran("test", "-e", one.data)
    assert host.processes_naming(one.data) == []


def test_the_debian_package_is_installed_upgraded_removed_and_purged(packages, machine):
    [package] = packages.glob("warren_*.deb")
    one = machine()
    shutil.copy(package, one.directory / "srv/warren.deb")
    before = set(one.run("find", "/", "-xdev", "-not", "-path", "/var/lib/dpkg/*").splitlines())
    # Complains if a dependency is missing: the machine has those that it names.
    one.run("dpkg", "--install", "/srv/warren.deb")
    held = one.run("dpkg", "--listfiles", "warren").splitlines()
    for name in ("usr/bin/warren", "usr/lib/systemd/system/warren.service", "etc/default/warren"):
        assert f"/{name}" in held
    assert "/etc/default/warren" in one.run("dpkg-query", "-W", "-f", "${Conffiles}", "warren")
    assert one.run("dpkg", "--verify", "warren") == ""
    version = re.search(r"\d+\.\d+\.\d+", package.name)[0]
    assert version in one.run("/usr/bin/warren", "--version")

    one.run("sh", "-c", f"echo 'WARREN_DATA_DIR={one.data}' >> /etc/default/warren")
    one.up("/usr/bin/warren", "--layers-dir", "/layers")
    works(one)
    kept = Sandbox.create("base", timeout=300, **one.options)
    running = kept.commands.run("sleep 1234", background=True, timeout=0)
    # An upgrade touches no sandbox and keeps the settings.
    one.run("dpkg", "--install", "/srv/warren.deb")
    assert kept.is_running()
    assert one.down() == 0
    one.up("/usr/bin/warren", "--layers-dir", "/layers")
    assert running.pid in [process.pid for process in kept.commands.list()]
    assert one.data in one.run("cat", "/etc/default/warren")
    # While a server runs that systemd does not know of, nothing is taken from under it.
    assert "another server uses" in one.fails("dpkg", "--remove", "warren")
    one.run("dpkg", "--install", "/srv/warren.deb")
    assert one.down() == 0

    assert "Ended all sandboxes" in one.run("dpkg", "--remove", "warren")
    assert host.processes_naming(one.data) == []
    assert one.ran("test", "-s", f"{one.data}/warren.db")
    one.run("dpkg", "--purge", "warren")
    assert not one.ran("test", "-e", one.data)
    after = set(one.run("find", "/", "-xdev", "-not", "-path", "/var/lib/dpkg/*").splitlines())
    assert {path for path in after - before if not path.startswith(("/tmp/", "/var/log/"))} == set()


def test_the_unit_is_one_that_systemd_takes(packages, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    [package] = packages.glob("warren_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path / "root"], check=True)
    text = (tmp_path / "root/usr/lib/systemd/system/warren.service").read_text()
    # Sandboxes outlive a restart of the server.
    assert re.search(r"(?m)^KillMode=process$", text)
    unit = tmp_path / "warren.service"
    unit.write_text(text.replace("/usr/bin/warren", str(tmp_path / "root/usr/bin/warren")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if "warren" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr


@pytest.fixture(scope="module")
def bundle(packages, tmp_path_factory) -> Path:
    """A bundle of the program and `base`."""
    file = tmp_path_factory.mktemp("bundle") / "warren-bundle.tar"
    program = packages.parent / "warren"
    done = bundled(program, file)
    assert done.returncode == 0, done.stderr
    return file


def bundled(program: Path, file: Path, **env) -> subprocess.CompletedProcess:
    words = ["bundle", "create", file, "--layers-dir", LAYERS, "--data-dir", file.parent / "none"]
    return subprocess.run([program, *words], capture_output=True, text=True, env=env, timeout=500)


def test_a_bundle_brings_everything_to_a_machine_without_a_network(bundle, machine):
    one = machine(network=False)
    shutil.copy(bundle, one.directory / "srv/bundle.tar")
    assert len(one.run("cat", "/proc/net/route").splitlines()) == 1
    one.run("tar", "-C", "/srv", "-xf", "/srv/bundle.tar", "warren")
    told = one.run("/srv/warren", "bundle", "install", "/srv/bundle.tar", "--data-dir", one.data, seconds=500)
    assert re.search(r"Installed warren [0-9.]+ with base", told)
    one.up("/usr/local/bin/warren")
    demo = ("demo", "--data-dir", one.data, "--api-url", one.url)
    assert "user on Linux" in one.run("/usr/local/bin/warren", *demo)
    assert one.down() == 0


def test_nothing_is_left_of_bundles_that_were_cut_off(bundle, machine, packages, tmp_path):
    program = packages.parent / "warren"
    file = tmp_path / "half.tar"
    done = bundled(program, file, WARREN_TEST_ABORT_AT="export.writing")
    assert done.returncode < 0
    assert list(tmp_path.iterdir()) == []

    data = tmp_path / "data"
    words = [program, "bundle", "install", bundle, "--bin-dir", tmp_path / "bin", "--data-dir", data]
    for step in ("layer.unpacking", "bundle.program"):
        env = {"WARREN_TEST_ABORT_AT": step, "PATH": "/usr/sbin:/usr/bin"}
        assert subprocess.run(words, env=env, capture_output=True).returncode < 0
        assert not (tmp_path / "bin/warren").exists()
    assert subprocess.run(words, capture_output=True).returncode == 0
    left = {path.name for path in (tmp_path / "bin").iterdir()}
    left |= {path.name for path in (data / "layers").iterdir() if not path.name.endswith(".lock")}
    [layer] = left - {"warren"}
    assert re.fullmatch("[0-9a-f]{64}", layer)
    again = bundled(program, bundle)
    assert again.returncode == 1 and "is there already" in again.stderr
    shutil.rmtree(data)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_static_program_of_a_release_runs_on_any_machine(machine, tmp_path):
    made = package(tmp_path / "out")
    one = machine()
    program = unpacked(made, one)
    of = one.disk / program.removeprefix("/")
    kind = subprocess.run(["file", "-L", of], capture_output=True, text=True).stdout
    assert "statically linked" in kind or "static-pie linked" in kind, kind
    assert "INTERP" not in subprocess.run(["readelf", "-lW", of], capture_output=True, text=True).stdout
    one.up(program, "--layers-dir", "/layers")
    works(one)
    assert one.down() == 0
    # With a name of its own, as the resolver of the C library would find it.
    name = f"{uuid.uuid4().hex[:8]}.test"
    one.run("sh", "-c", f"echo 127.0.0.1 {name} >> /etc/hosts")
    one.up(program, "--layers-dir", "/layers")
    one.run(program, "sandbox", "list", "--api-url", f"http://{name}:{one.port}", "--data-dir", one.data)
    assert one.down() == 0
    # The package's dependencies are fetched by apt, from a machine that has none of them.
    [deb] = made.glob("*.deb")
    shutil.copy(deb, one.directory / "srv/warren.deb")
    one.run("dpkg", "--purge", "--force-depends", "xfsprogs")
    names = Path("/etc/resolv.conf").read_text()
    one.run("sh", "-c", 'printf "%s" "$1" > /etc/resolv.conf', "sh", names)
    one.run("apt-get", "update", seconds=300)
    one.run("apt-get", "install", "-y", "--no-install-recommends", "/srv/warren.deb", seconds=600)
    assert one.ran("which", "mkfs.xfs")
    until(lambda: one.ran("/usr/bin/warren", "--version"), "the program runs")
