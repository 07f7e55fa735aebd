"""Container images that tests make of a few files, as archives and in a registry."""

import hashlib
import io
import json
import platform
import tarfile
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from e2b import Sandbox

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

# Programs of a system as images of it have them, and what packages bring beside them.
SMALL = (
    "sh cat chmod chown cp dirname basename echo env false grep head hostname id ln ls mkdir mv "
    "pwd readlink rm rmdir sed sleep sort stat tail touch tr true uname wc xargs"
)
PACKAGES = (
    "bash sudo curl update-ca-certificates git jq ip ss pgrep less ping socat useradd usermod "
    "groupadd passwd getent tar find awk"
)
# Packs programs with their libraries and settings, without the users of the template.
PACK = r"""
set -e
root=$(mktemp -d); chmod 755 $root
put() {
    to=$root$(readlink -f "$(dirname "$1")")/$(basename "$1")
    mkdir -p "$(dirname "$to")"
    cp -Lp "$1" "$to"
}
for name in PROGRAMS; do put "$(type -P $name)"; done
for file in $(find /usr/lib/*/security /usr/libexec/sudo -name '*.so'); do put $file; done
for file in $(find $root -type f | xargs ldd 2>/dev/null |
    sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p' | sort -u); do put $file; done
cd /etc
cp -a --parents pam.d security skel login.defs default nsswitch.conf profile bash.bashrc passwd \
    group shadow gshadow sudoers ld.so.conf ld.so.conf.d ld.so.cache $root
cd $root
mkdir etc; mv pam.d security skel login.defs default nsswitch.conf profile bash.bashrc passwd \
    group shadow gshadow sudoers ld.so.conf ld.so.conf.d ld.so.cache etc
sed -i '/^user[: ]/d; s/\buser$//' etc/passwd etc/group etc/shadow etc/gshadow etc/sudoers
tar --numeric-owner -c .
"""


def packed(sandbox: Sandbox, programs: str) -> bytes:
    """An archive of programs of a sandbox, with all that they need."""
    command = PACK.replace("PROGRAMS", programs)
    sandbox.commands.run(f"({command}) > /tmp/packed", user="root", timeout=120)
    return bytes(sandbox.files.read("/tmp/packed", format="bytes", user="root"))


def layer(files: dict[str, str | bytes], links: dict[str, str] | None = None) -> bytes:
    """An archive of files, which are programs if they begin as scripts do, and of links."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(path)
            info.size = len(content)
            info.mode = 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(info, io.BytesIO(content))
        for path, target in (links or {}).items():
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return archive.getvalue()


# The directories of all programs are one, as in most systems of today.
MERGED = {name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")}


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass
class Image:
    """An image of these layers, plain archives, lowest first."""

    layers: list[bytes]
    env: list[str] = field(default_factory=list)

    def __post_init__(self):
        config = {
            "architecture": ARCH,
            "os": "linux",
            "config": {"Env": self.env},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in self.layers]},
        }
        config = json.dumps(config).encode()
        described = [self._described(CONFIG, config)]
        described += [self._described(LAYER, layer) for layer in self.layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        self.manifest = json.dumps(manifest).encode()
        self.blobs = {digest(blob): blob for blob in (config, *self.layers)}

    @staticmethod
    def _described(kind: str, blob: bytes) -> dict:
        return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}

    def archive(self) -> bytes:
        """It as a layout in an archive."""
        index = {"schemaVersion": 2, "manifests": [self._described(MANIFEST, self.manifest)]}
        files = {"oci-layout": '{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index)}
        for name, blob in {**self.blobs, digest(self.manifest): self.manifest}.items():
            files[name.replace("sha256:", "blobs/sha256/")] = blob
        return layer(files)


class Registry:
    """Serves one image under every name. Stalls in the middle of the blob that `stalls`
    names."""

    def __init__(self, image: Image):
        self.image = image
        self.stalls: str | None = None
        self._end = threading.Event()
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                registry._answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        image, path = self.image, request.path
        if path == "/v2/":
            kind, body = "application/json", b"{}"
        elif "/manifests/" in path:
            kind, body = MANIFEST, image.manifest
        else:
            kind, body = "application/octet-stream", image.blobs[path.rsplit("/", 1)[1]]
        request.send_response(200)
        request.send_header("content-type", kind)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        if request.command == "HEAD":
            return
        half = len(body) // 2
        try:
            request.wfile.write(body[:half])
            request.wfile.flush()
            if self.stalls and path.endswith(self.stalls):
                self._end.wait(120)
            request.wfile.write(body[half:])
        except OSError:  # The one who asked was killed.
            pass

    def close(self) -> None:
        self._end.set()
        self._server.shutdown()
