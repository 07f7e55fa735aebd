"""The servers of the lab. Runs in its namespace; knows nothing of the tests."""

import json
import socket
import socketserver
import ssl
import struct
import sys
import threading
from pathlib import Path

import h2.config
import h2.connection
import h2.events

SETTINGS = json.loads(sys.argv[1])
DIRECTORY = Path(SETTINGS["directory"])
LOG = (DIRECTORY / "lab.jsonl").open("a", buffering=1)
LOCK = threading.Lock()


def tell(**entry) -> None:
    with LOCK:
        LOG.write(json.dumps(entry) + "\n")


def dns_answer(query: bytes, at: str) -> bytes:
    labels, offset = [], 12
    while length := query[offset]:
        labels.append(query[offset + 1 : offset + 1 + length].decode("latin-1"))
        offset += 1 + length
    name = ".".join(labels).lower()
    kind = struct.unpack(">H", query[offset + 1 : offset + 3])[0]
    tell(kind="dns", at=at, name=name, type=kind)
    question = query[12 : offset + 5]
    address = SETTINGS["names"].get(name) or SETTINGS["names"].get(f"*.{name.split('.', 1)[-1]}")
    found = address is not None and kind == 1
    code = 0 if address is not None else 3
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(found), 0, 0)
    record = b""
    if found:
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + socket.inet_aton(address)
    return head + question + record


def read_exactly(stream: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class DnsTcp(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while True:
                size = struct.unpack(">H", read_exactly(self.request, 2))[0]
                query = read_exactly(self.request, size)
                answer = dns_answer(query, self.request.getsockname()[0])
                self.request.sendall(struct.pack(">H", len(answer)) + answer)
        except (EOFError, OSError, IndexError):
            return


def read_head(stream) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        more = stream.recv(4096)
        if not more:
            return b""
        head += more
    return head


def modern(stream, at: str, name: str | None) -> None:
    """Answers requests of HTTP/2 as `Web` does those of HTTP/1.1, with a trailer."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(False, "utf-8"))
    peer.initiate_connection()
    stream.sendall(peer.data_to_send())
    while data := stream.recv(65536):
        for event in peer.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                fields = [(key, value) for key, value in event.headers]
                lines = [f"{key}: {value}" for key, value in fields if key[0] != ":"]
                shown = dict(fields)
                line = f"{shown[':method']} {shown[':path']} HTTP/2"
                host = f"host: {shown[':authority']}"
                head = "\r\n".join([line, host, *lines, "", ""])
                entry = {"at": at, "port": 443, "sni": name, "head": head}
                tell(kind="http", line=line, **entry)
                peer.send_headers(event.stream_id, [(":status", "200")])
                peer.send_data(event.stream_id, json.dumps(entry).encode())
                peer.send_headers(event.stream_id, [("x-last", "trailer")], end_stream=True)
            elif isinstance(event, h2.events.DataReceived):
                peer.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream.sendall(peer.data_to_send())


class Web(socketserver.BaseRequestHandler):
    """Answers each request with its own address and the request's head."""

    def handle(self):
        at, port = self.request.getsockname()[:2]
        name = None
        stream = self.request
        tell(kind="tcp", at=at, port=port)
        stream.settimeout(10)
        try:
            if port == 443:
                names = []
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(DIRECTORY / "cert.pem", DIRECTORY / "key.pem")
                context.sni_callback = lambda _stream, asked, _context: names.append(asked)
                if at == SETTINGS["modern"]:
                    context.set_alpn_protocols(["h2", "http/1.1"])
                stream = context.wrap_socket(stream, server_side=True)
                name = names[0] if names else None
                if stream.selected_alpn_protocol() == "h2":
                    modern(stream, at, name)
                    return
            while head := read_head(stream):
                line = head.split(b"\r\n", 1)[0].decode("latin-1")
                entry = {"at": at, "port": port, "sni": name, "head": head.decode("latin-1")}
                tell(kind="http", line=line, **entry)
                if b"upgrade: websocket" in head.lower():
                    stream.sendall(
                        b"HTTP/1.1 101 Switching Protocols\r\n"
                        b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
                    )
                    while data := stream.recv(4096):
                        stream.sendall(data)
                    return
                body = json.dumps(entry).encode()
                if " /quiet" in line:
                    body = b"ok"
                if " /big" in line:
                    body = b"x" * (32 << 20)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        except OSError:
            return


class Banner(socketserver.BaseRequestHandler):
    def handle(self):
        at, port = self.request.getsockname()[:2]
        tell(kind="tcp", at=at, port=port)
        self.request.sendall(b"SSH-2.0-lab\r\n")
        try:
            self.request.recv(100)
        except OSError:
            return


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


class Socks(socketserver.BaseRequestHandler):
    """SOCKS5 for `lab` with `proxy-password`."""

    def handle(self):
        at, port = self.request.getsockname()[:2]
        stream = self.request
        stream.settimeout(20)
        try:
            if port == 1443:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(DIRECTORY / "cert.pem", DIRECTORY / "key.pem")
                stream = context.wrap_socket(stream, server_side=True)
            count = read_exactly(stream, 2)[1]
            read_exactly(stream, count)
            stream.sendall(b"\5\2")
            user = read_exactly(stream, read_exactly(stream, 2)[1])
            password = read_exactly(stream, read_exactly(stream, 1)[0])
            if (user, password) != (b"lab", b"proxy-password"):
                tell(kind="socks", at=at, target="refused")
                stream.sendall(b"\1\1")
                return
            stream.sendall(b"\1\0")
            kind = read_exactly(stream, 4)[3]
            if kind == 3:
                host = read_exactly(stream, read_exactly(stream, 1)[0]).decode()
            else:
                host = socket.inet_ntoa(read_exactly(stream, 4))
            to = struct.unpack(">H", read_exactly(stream, 2))[0]
            tell(kind="socks", at=at, target=f"{host}:{to}")
            with socket.create_connection((SETTINGS["names"].get(host, host), to), 5) as server:
                stream.sendall(b"\5\0\0\1" + bytes(6))
                thread = threading.Thread(target=pump, args=(server, stream), daemon=True)
                thread.start()
                pump(stream, server)
                thread.join(20)
        except (EOFError, OSError):
            return


class Tcp(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def udp(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        while True:
            data, peer = server.recvfrom(4096)
            if port == 53:
                try:
                    server.sendto(dns_answer(data, address), peer)
                except IndexError:
                    continue
            else:
                tell(kind="udp", at=address, port=port)
                server.sendto(b"echo " + data, peer)


def main() -> None:
    jobs = []
    for address in SETTINGS["addresses"]:
        jobs += [(udp, (address, port)) for port in (53, 443, 9999)]
    for port, handler in ((53, DnsTcp), (80, Web), (443, Web), (8080, Web), (22, Banner), (1080, Socks), (1443, Socks)):
        jobs.append((Tcp(("0.0.0.0", port), handler).serve_forever, ()))
    threads = [threading.Thread(target=job, args=args, daemon=True) for job, args in jobs]
    for thread in threads:
        thread.start()
    (DIRECTORY / "ready").touch()
    for thread in threads:
        thread.join()


main()
