"""Images of several distributions, made here of a few files: what a build makes of them."""

import hashlib
import io
import tarfile

import pytest
from e2b import Sandbox

from support import images
from support.images import Image, layer
from support.wait import until

pytestmark = pytest.mark.timeout(300)

# Stands for a package manager: brings what lies in an archive, or makes a program of the
# package's name, and keeps what it was told.
MANAGER = """#!/bin/sh
echo "{name} $*" >> /var/manager.log
[ -f /packages.tar ] && {{ tar -xf /packages.tar -C / && rm /packages.tar || exit 1; }}
for package; do
    [ -e /usr/bin/$package ] || {{
        printf '#!/bin/sh\\necho made by {name}\\n' > /usr/bin/$package
        chmod 755 /usr/bin/$package
    }}
done
"""
ALPINE_PROFILE = """export PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
export PAGER=less
umask 022
for script in /etc/profile.d/*.sh ; do
    if [ -r "$script" ] ; then . "$script" ; fi
done
"""
BUSYBOX = """set -e
cd $(mktemp -d)
apt-get -qq update >&2
apt-get -qq download busybox-static >&2
dpkg -x busybox-static_*.deb . >&2
root=$(mktemp -d)
mkdir -p $root/bin $root/sbin $root/usr/bin $root/usr/sbin $root/var $root/etc $root/root
mkdir -p $root/tmp $root/etc/profile.d
cp $(find . -path '*bin/busybox' -type f) $root/bin/busybox
for path in $($root/bin/busybox --list-full); do
    case $path in */busybox | linuxrc) continue ;; esac
    mkdir -p $root/$(dirname $path); ln -s /bin/busybox $root/$path
done
tar -C $root --numeric-owner -c .
"""


@pytest.fixture(scope="module")
def maker():
    """A sandbox of the default base, which has every program."""
    with Sandbox.create(timeout=600) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def system(maker) -> bytes:
    """The programs of a system that lacks nothing."""
    return images.packed(maker, f"{images.SMALL} {images.PACKAGES}")


@pytest.fixture
def name(unique, api):
    """A name for a template, which is deleted after the test."""
    name = f"images-{unique[:12]}"
    yield name
    api.delete(f"/templates/{name}")


@pytest.fixture
def build(api, name):
    """Builds an image and steps; gives the last status with the whole log."""

    def run(image: Image, *commands: str) -> dict:
        archive = image.archive()
        hashed = hashlib.sha256(archive).hexdigest()
        made = api.post("/v3/templates", json={"name": name}).json()
        place = api.get(f"/templates/{made['templateID']}/files/{hashed}").json()
        if not place["present"]:
            assert api.put(place["url"], content=archive, timeout=120).status_code == 200
        path = f"{made['templateID']}/builds/{made['buildID']}"
        steps = [{"type": "RUN", "args": [command]} for command in commands]
        answer = api.post(
            f"/v2/templates/{path}", json={"fromImage": f"oci:{hashed}", "steps": steps}
        )
        assert answer.status_code == 202, answer.text
        seen: list[dict] = []

        def ended() -> dict | None:
            status = api.get(f"/templates/{path}/status", params={"logsOffset": len(seen)}).json()
            seen.extend(status["logEntries"])
            return status if status["status"] in ("ready", "error") else None

        status = until(ended, "the build ends", 180)
        while entries := api.get(
            f"/templates/{path}/status", params={"logsOffset": len(seen)}
        ).json()["logEntries"]:
            seen.extend(entries)
        return {**status, "logEntries": seen}

    return run


def messages(status: dict) -> list[str]:
    return [entry["message"] for entry in status["logEntries"]]


def release(name: str, like: str = "") -> str:
    return f'ID={name}\nVERSION_ID=1\nID_LIKE="{like}"\n'


CHECK = "id -un; pwd; sudo -n id -u; echo $PATH_IS"
SEEN = ["user", "/home/user", "0", "of the image"]


def check_usable(status: dict, name: str) -> None:
    assert status["status"] == "ready", (status.get("reason"), messages(status)[-40:])
    output = [m.split("[stdout]: ")[1] for m in messages(status) if "1/1] [stdout]: " in m]
    assert output == SEEN, messages(status)[-20:]
    with Sandbox.create(name, timeout=60) as sandbox:
        seen = sandbox.commands.run("id -un; pwd; sudo -n id -u; echo $SHELL; stat -c %a /code").stdout
        assert seen == "user\n/home/user\n0\n/bin/bash\n777\n"
        sandbox.files.write("/home/user/file", "written")
        assert sandbox.files.read("/home/user/file") == "written"


ENV = ["PATH_IS=of the image"]


def test_alpine_gets_what_it_lacks_from_its_packages(name, build, maker):
    maker.commands.run(f"({BUSYBOX}) > /tmp/busybox", user="root", timeout=120)
    system = bytes(maker.files.read("/tmp/busybox", format="bytes", user="root"))
    files = {
        "etc/os-release": release("alpine"),
        "etc/profile": ALPINE_PROFILE,
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": "root:x:0:\nwheel:x:10:root\n",
        "etc/shadow": "root:*::0:::::\n",
    }
    # Where what comes with the packages looks for its libraries.
    loader = {"lib": "usr/lib", "lib64": "usr/lib64"}
    # Without a package manager nothing can be had, which the failure says.
    status = build(Image([system, layer(files, loader)], ENV))
    assert status["reason"]["step"] == "base"
    reason = status["reason"]["message"]
    assert reason.startswith("error waiting for provisioning sandbox: exit status: 1; "), reason
    assert "installing bash sudo curl" in reason and reason.endswith("failed"), reason
    packages = images.packed(maker, images.PACKAGES)
    added = {"sbin/apk": MANAGER.format(name="apk"), "packages.tar": without_users(packages)}
    status = build(Image([system, layer(files | added, loader)], ENV), CHECK)
    check_usable(status, name)
    with Sandbox.create(name, timeout=60) as sandbox:
        told = sandbox.commands.run("cat /var/manager.log; id -Gn; readlink $(which ls)").stdout
        assert told.startswith("apk add --no-cache bash sudo curl ca-certificates git"), told
        assert told.endswith("user wheel\n/bin/busybox\n"), told


def without_users(archive: bytes) -> bytes:
    """An archive without the system's own users and groups, which packages do not bring."""
    kept = io.BytesIO()
    own = {"./etc/passwd", "./etc/group", "./etc/shadow", "./etc/gshadow", "./etc/profile"}
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(
        fileobj=kept, mode="w"
    ) as new:
        for entry in old:
            if entry.name not in own:
                new.addfile(entry, old.extractfile(entry) if entry.isreg() else None)
    return kept.getvalue()


@pytest.mark.parametrize(
    "system_id, manager, call",
    [("fedora", "dnf", "install -qy"), ("arch", "pacman", "-Sy --noconfirm --needed")],
)
def test_other_families_get_what_they_lack(name, build, system, system_id, manager, call):
    group = "root:x:0:\nwheel:x:10:\n"
    files = {
        "etc/os-release": release(system_id),
        "etc/group": group,
        "etc/gshadow": "root:*::\nwheel:!::\n",
        f"usr/bin/{manager}": MANAGER.format(name=manager),
        "usr/bin/.wh.jq": "",
        "usr/bin/.wh.socat": "",
        "var/.keep": "",
    }
    status = build(Image([system, layer(files, images.MERGED)], ENV), CHECK)
    check_usable(status, name)
    with Sandbox.create(name, timeout=60) as sandbox:
        told = sandbox.commands.run("cat /var/manager.log; jq; id -Gn").stdout
        assert told.startswith(f"{manager} {call} ") and " jq " in told, told
        assert told.endswith(f"made by {manager}\nuser wheel\n"), told


def test_a_relative_is_taken_for_what_it_is_like(name, build, system):
    files = {"etc/os-release": release("own", "ubuntu debian")}
    status = build(Image([system, layer(files, images.MERGED)], ENV), CHECK)
    check_usable(status, name)
    told = "base image distribution ID='own' is handled as 'ubuntu'"
    assert any(told in message for message in messages(status))


@pytest.mark.parametrize("system_id", ["ol", "amzn", "rhel", "plan9", None])
def test_what_is_not_known_is_refused_by_name(build, system, system_id):
    files = {"etc/os-release": release(system_id, "fedora")} if system_id else {"etc/x": ""}
    if system_id == "plan9":
        files = {"etc/os-release": release(system_id)}
    status = build(Image([system, layer(files, images.MERGED)]))
    assert (status["status"], status["reason"]["step"]) == ("error", "base")
    reason = status["reason"]["message"]
    assert reason.startswith("error waiting for provisioning sandbox: exit status: 1; "), reason
    told = (
        f"base image distribution ID='{system_id}' is not supported."
        if system_id
        else "base image has no /etc/os-release."
    )
    assert f"{told} Supported are Debian, Ubuntu, Fedora" in reason, reason
