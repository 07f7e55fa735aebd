"""An HTTP server that runs inside a sandbox and tells what reached it."""

import base64
import hashlib
import http.server
import json
import struct
import sys
import threading
import urllib.parse

NEXT = threading.Semaphore(0)
HUNG_UP = threading.Event()
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        """The size and hash of the request's body, which may be chunked."""
        digest, size = hashlib.sha256(), 0
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while length := int(self.rfile.readline().split(b";")[0], 16):
                data = self.rfile.read(length)
                self.rfile.readline()
                digest.update(data)
                size += length
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left:
                data = self.rfile.read(min(left, 1 << 20))
                left -= len(data)
                size += len(data)
                digest.update(data)
        return size, digest.hexdigest()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def start_chunks(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def events(self):
        """Emits each event only after the client asked for it over another connection."""
        self.start_chunks("text/event-stream")
        for number in range(3):
            NEXT.acquire(timeout=20)
            self.chunk(b"data: %d\n\n" % number)
        self.chunk(b"")

    def hang(self):
        self.start_chunks("text/plain")
        self.chunk(b"started")
        self.connection.settimeout(30)
        try:
            closed = self.connection.recv(1) == b""
        except ConnectionError:
            closed = True
        except TimeoutError:
            closed = False
        if closed:
            HUNG_UP.set()
        self.close_connection = True

    def websocket(self):
        key = self.headers["Sec-WebSocket-Key"].encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        self.close_connection = True
        while True:
            head = self.rfile.read(2)
            if len(head) < 2:
                return
            length = head[1] & 127
            if length == 126:
                (length,) = struct.unpack(">H", self.rfile.read(2))
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
            size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length)
            self.wfile.write(head[:1] + size + data)
            self.wfile.flush()
            if head[0] & 15 == 8:
                return

    def handle_any(self):
        path, _, query = self.path.partition("?")
        if path == "/events":
            self.events()
        elif path == "/hang":
            self.hang()
        elif path == "/ws":
            self.websocket()
        elif path == "/next":
            NEXT.release()
            self.answer(200, b"")
        elif path == "/hung-up":
            self.answer(200, b"yes" if HUNG_UP.is_set() else b"no")
        elif path == "/502":
            self.answer(502, b"the guest's own 502", Content_Type="text/x-own", X_Own="1")
        elif path == "/cors":
            self.answer(200, b"", Access_Control_Allow_Origin="https://a.example")
        elif path == "/big":
            megabytes = int(urllib.parse.parse_qs(query)["mb"][0])
            self.send_response(200)
            self.send_header("Content-Length", str(megabytes << 20))
            self.end_headers()
            for number in range(megabytes):
                self.wfile.write(bytes([number & 255]) * (1 << 20))
        else:
            size, digest = self.body()
            seen = {
                "method": self.command,
                "path": self.path,
                "headers": [[k.lower(), v] for k, v in self.headers.items()],
                "size": size,
                "sha256": digest,
            }
            self.answer(200, json.dumps(seen).encode(), Content_Type="application/json")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = handle_any


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    Server(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
