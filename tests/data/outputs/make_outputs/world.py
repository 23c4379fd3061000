"""A small hostile network for the cases: it lives on the loopback of a network namespace of its own.

Rules:
- A server's behaviour is chosen by the name or port it is asked for, so a case needs no state.
- Blocking sockets and one daemon thread for each connection: this makes data, it serves nobody.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import socket
import ssl
import struct
import threading
import time
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

WEB, DEAD, BLACK, SSHD, PLAIN = (f"198.51.100.{n}" for n in (1, 2, 3, 4, 5))
RESET, CLOSE, STALL, JUMP, PROXY, SOCKS = (f"198.51.100.{n}" for n in (6, 7, 8, 9, 20, 21))
NO_NET, NO_HOST = "203.0.113.1", "203.0.113.9"
ADDRESSES = {
    "dead": DEAD, "black": BLACK, "sshd": SSHD, "plain": PLAIN, "reset": RESET, "close": CLOSE,
    "stall": STALL, "jump": JUMP, "nonet": NO_NET, "nohost": NO_HOST,
}  # fmt: skip
NOW = datetime.datetime.now(datetime.UTC)
MOD = b"module lab.example/a\n\ngo 1.24\n"


def zip_bytes(text: str = "package a\n\nconst A = 1\n") -> bytes:
    """lab.example/a@v1.0.0 as a module zip."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("lab.example/a@v1.0.0/go.mod", MOD)
        archive.writestr("lab.example/a@v1.0.0/a.go", text)
    return out.getvalue()


def go_sum() -> str:
    """The true go.sum of lab.example/a@v1.0.0."""

    def h1(files: dict[str, bytes]) -> str:
        lines = "".join(f"{hashlib.sha256(files[n]).hexdigest()}  {n}\n" for n in sorted(files))
        return "h1:" + b64encode(hashlib.sha256(lines.encode()).digest()).decode()

    archive = zipfile.ZipFile(io.BytesIO(zip_bytes()))
    whole = h1({n: archive.read(n) for n in archive.namelist()})
    return f"lab.example/a v1.0.0 {whole}\nlab.example/a v1.0.0/go.mod {h1({'go.mod': MOD})}\n"


def certificates(folder: Path) -> Callable[[str], ssl.SSLContext]:
    """Writes ca.pem; gives a function from a server name to its TLS context."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def make(
        name: str, issuer: str, key: ec.EllipticCurvePrivateKey, end: int, ca: bool, start: int = -30
    ) -> x509.Certificate:
        def as_name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder().subject_name(as_name(name)).issuer_name(as_name(issuer))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(NOW + datetime.timedelta(days=start))
            .not_valid_after(NOW + datetime.timedelta(days=end))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )  # fmt: skip
        return builder.sign(cas[issuer], hashes.SHA256())

    cas = {n: ec.generate_private_key(ec.SECP256R1()) for n in ("lab ca", "Corp Inspection CA")}
    root = make("lab ca", "lab ca", cas["lab ca"], 300, True)
    (folder / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    lock = threading.Lock()

    def context(name: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = "Corp Inspection CA" if name.startswith("inspected") else "lab ca"
        shown = "other.lab.example" if name.startswith("wrongname") else name
        start, end = (-30, -3) if name.startswith("expired") else (-30, 30)
        if name.startswith("future"):
            start, end = 3, 30
        leaf = make(shown, issuer, key, end, False, start)
        with lock:
            file = folder / "leaf.pem"
            file.write_bytes(
                leaf.public_bytes(serialization.Encoding.PEM)
                + key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            made.load_cert_chain(file)
        made.set_alpn_protocols(["h2"] if name.startswith("h2") else ["http/1.1"])
        return made

    return context


def serve(address: str, port: int, handle: Callable[[socket.socket], None]) -> None:
    """Accept for ever in a thread; each connection in one of its own; sockets closed after `handle`."""
    listener = socket.create_server((address, port))

    def one(client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, IndexError), client:
            client.settimeout(60)
            handle(client)

    def loop() -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=one, args=(client,), daemon=True).start()

    threading.Thread(target=loop, daemon=True).start()


def resolver() -> None:
    """DNS on 127.0.0.1:53: nx.* silent.* servfail.* refused.* behave so, the rest has an A record."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 53))

    def loop() -> None:
        while True:
            query, peer = sock.recvfrom(4096)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            question, kind = query[12 : at + 5], query[at + 2]
            word = labels[0]
            if word == "silent":
                continue
            code = {"nx": 3, "servfail": 2, "refused": 5}.get(word, 0)
            found = code == 0 and kind == 1
            answer = b""
            if found:
                address = socket.inet_aton(ADDRESSES.get(word, SSHD if "ssh" in word else WEB))
                answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + address
            sock.sendto(
                query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, int(found), 0, 0) + question + answer,
                peer,
            )

    threading.Thread(target=loop, daemon=True).start()


def read_head(client: socket.socket) -> str:
    """Bytes up to the empty line, as text; "" at end of file."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := client.recv(1)):
        head += byte
    return head.decode("latin-1")


def answer(client: socket.socket, status: str, body: bytes, kind: str = "text/plain", claim: int = 0) -> None:
    """One HTTP response; `claim` is a Content-Length larger than the body."""
    auth = "WWW-Authenticate: Basic realm=x\r\n" if status.startswith("401") else ""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {claim or len(body)}\r\n{auth}\r\n"
    client.sendall(head.encode() + body)


def rst(client: socket.socket) -> None:
    """Close with a RST instead of a FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def origin(name: str, client: socket.socket) -> None:
    """HTTP/1.1 behind TLS: a GOPROXY whose faults are chosen by the first label of its name."""
    while head := read_head(client):
        path = head.split(" ")[1]
        word = name.split(".")[0]
        is_zip = path.endswith(".zip")
        if word[:1] == "s" and word[1:4].isdigit():
            text = word.partition("-")[2].replace("-", " ") or "sorry"
            reasons = {"401": "Unauthorized", "404": "Not Found"}
            answer(client, f"{word[1:4]} {reasons.get(word[1:4], 'Reason')}", f"{text}\n".encode())
        elif word == "endless":
            client.sendall(b"HTTP/1.1 200 OK\r\n")
            while True:
                client.sendall(b"X-More: " + b"x" * 8000 + b"\r\n")
        elif word == "huge" and is_zip:
            client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                client.sendall(b"100000\r\n" + bytes(0x100000) + b"\r\n")
        elif word in ("loop", "downgrade"):
            scheme = "https" if word == "loop" else "http"
            to = f"Location: {scheme}://{name}{path}\r\nContent-Length: 0\r\n\r\n"
            client.sendall(f"HTTP/1.1 302 Found\r\n{to}".encode())
        elif word == "ours":
            answer(client, "502 Bad Gateway", b"gotunnel: ssh.auth-failed: tokyo: permission denied\n")
        elif path.startswith("/sumdb/") and word == "nosum":
            answer(client, "404 Not Found", b"not found: lab.example/a@v1.0.0: unknown revision\n")
        elif path.startswith("/sumdb/") and word.startswith("sum"):
            answer(
                client, "503 Reason" if word == "sum503" else "200 OK", b"<html>Log in</html>", "text/html"
            )
        elif word in ("portal", "nometa") or (word == "portalzip" and is_zip):
            answer(client, "200 OK", b"<html><body>Please log in</body></html>", "text/html")
        elif word == "git401" or word == "github":
            answer(client, "401 Unauthorized", b"no\n")
        elif word in ("truncated", "truncmod") and (is_zip or word == "truncmod"):
            answer(client, "200 OK", zip_bytes()[:60], "application/zip", claim=9000)
            return
        elif word == "resetbody" and is_zip:
            answer(client, "200 OK", zip_bytes()[:60], "application/zip", claim=9000)
            time.sleep(0.3)
            rst(client)
            return
        elif word == "halfzip" and is_zip:
            answer(client, "200 OK", zip_bytes()[:200], "application/zip")
        elif path.endswith("/list"):
            answer(client, "200 OK", b"v1.0.0\n")
        elif path.endswith(".info"):
            answer(
                client, "200 OK", b'{"Version":"v1.0.0","Time":"2024-01-01T00:00:00Z"}', "application/json"
            )
        elif path.endswith(".mod"):
            answer(client, "200 OK", b"nonsense here\n" if word == "badmod" else MOD)
        elif is_zip:
            text = "package a\n\nconst A = 2\n" if word == "tampered" else "package a\n\nconst A = 1\n"
            answer(client, "200 OK", zip_bytes(text), "application/zip")
        else:
            answer(client, "404 Not Found", b"not found: no such module\n")


def http2_error(client: socket.socket) -> None:
    """HTTP/2 that resets stream 1 with INTERNAL_ERROR."""
    client.sendall(b"\0\0\0\4\0\0\0\0\0")
    client.recv(65536)
    client.sendall(b"\0\0\4\3\0\0\0\0\1" + struct.pack(">I", 2))
    time.sleep(1)


def connect_proxy(client: socket.socket) -> None:
    """A CONNECT proxy; `connect-NNN-words.…` is refused with that status, `ours.…` in our exact form."""
    target = read_head(client).split(" ")[1]
    word = target.split(".")[0]
    if word.startswith("connect-"):
        _, status, *phrase = word.split("-")
        client.sendall(f"HTTP/1.1 {status} {' '.join(phrase)}\r\nContent-Length: 0\r\n\r\n".encode())
    elif word == "hangup":
        return
    elif word == "silent":
        time.sleep(90)
    else:
        client.sendall(b"HTTP/1.1 502 gotunnel: ssh.host-key-changed: tokyo: host key changed\r\n\r\n")


def socks(code: int) -> Callable[[socket.socket], None]:
    """SOCKS5 that answers every CONNECT with reply `code`; 255 no method, 254 wrong password."""

    def handle(client: socket.socket) -> None:
        client.settimeout(2)
        client.recv(300)
        client.sendall(b"\x05\xff" if code == 255 else b"\x05\x02" if code == 254 else b"\x05\x00")
        client.recv(300)
        client.sendall(b"\x01\x01" if code == 254 else bytes([5, code, 0, 1, 0, 0, 0, 0, 0, 0]))

    return handle


def build(folder: Path) -> None:
    """Start everything; needs the namespace's loopback up with all addresses on it."""
    context = certificates(folder)

    def web(client: socket.socket) -> None:
        names: list[str] = []

        def choose(sock: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            names.append(name or "none")
            sock.context = context(name or "none")

        base = context("base.lab.example")
        base.sni_callback = choose
        with base.wrap_socket(client, server_side=True) as secure:
            (http2_error(secure) if names[0].startswith("h2") else origin(names[0], secure))

    def plain(client: socket.socket) -> None:
        client.recv(4096)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def reset(client: socket.socket) -> None:
        client.recv(4096)
        rst(client)

    def banner(client: socket.socket) -> None:
        client.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
        client.recv(4096)

    def kex(client: socket.socket) -> None:
        client.recv(10)

    def swallow(client: socket.socket) -> None:
        client.recv(4096)

    resolver()
    serve(WEB, 443, web)
    serve(PLAIN, 443, plain)
    serve(RESET, 443, reset)
    serve(CLOSE, 443, swallow)
    serve(CLOSE, 22, kex)
    serve(STALL, 443, lambda c: time.sleep(20))
    serve(PROXY, 3128, connect_proxy)
    serve(PROXY, 22, banner)
    serve(PROXY, 80, plain)
    for code in (1, 2, 3, 4, 5, 6, 254, 255):
        serve(SOCKS, 1080 + code, socks(code))
