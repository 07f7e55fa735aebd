"""A bucket of an S3 service, as much of one as volumes need, in memory.

It checks no signatures: that is tested beside the code, against a service that does.
"""

import hashlib
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Bucket:
    """Objects by key, served on loopback until closed."""

    name = "disks"

    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.lock = threading.Lock()
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def key(self) -> str:
                return unquote(urlsplit(self.path).path).removeprefix(f"/{bucket.name}").lstrip("/")

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with bucket.lock:
                    found = bucket.objects.get(self.key())
                    fresh = self.headers.get("If-None-Match")
                    wanted = self.headers.get("If-Match")
                    if (fresh and found is not None) or (
                        wanted and (found is None or tag(found) != wanted)
                    ):
                        return self.answer(412)
                    bucket.objects[self.key()] = body
                self.answer(200, ETag=tag(body))

            def do_GET(self):
                if not self.key():
                    return self.list()
                with bucket.lock:
                    found = bucket.objects.get(self.key())
                if found is None:
                    return self.answer(404)
                modified = formatdate(usegmt=True)
                self.answer(200, found, ETag=tag(found), Last_Modified=modified)

            def do_DELETE(self):
                with bucket.lock:
                    bucket.objects.pop(self.key(), None)
                self.answer(204)

            def list(self):
                prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
                with bucket.lock:
                    found = {key: len(body) for key, body in bucket.objects.items()}
                entries = "".join(
                    f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size>"
                    "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                    '<ETag>"0"</ETag></Contents>'
                    for key, size in sorted(found.items())
                    if key.startswith(prefix)
                )
                body = (
                    '<?xml version="1.0"?><ListBucketResult>'
                    f"<Name>{bucket.name}</Name><IsTruncated>false</IsTruncated>"
                    f"{entries}</ListBucketResult>"
                )
                self.answer(200, body.encode(), Content_Type="application/xml")

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def flags(self) -> list[str]:
        """What a server needs to keep its volumes here."""
        endpoint = f"http://127.0.0.1:{self._server.server_port}"
        flags = ["--volume-backend", "s3", "--volume-s3-bucket", self.name]
        flags += ["--volume-s3-endpoint", endpoint, "--volume-s3-region", "here"]
        return [*flags, "--volume-write-back-secs", "1", "--volume-size-mib", "64"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def tag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'
