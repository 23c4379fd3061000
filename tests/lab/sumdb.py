"""A checksum database of its own: a signed log of the sums of a go.sum, over http or https.

    python -m tests.lab.sumdb ADDRESS PORT --secret HEX --sums FILE --control FILE --log FILE
                              [--cert FILE --key FILE]

Rules:
- Its name is `NAME`, its key is made anew; `gosumdb` is what go is to be told.
- Among the records are `padding` of modules that nobody needs, so that there are several tiles: a third of
  them, half of the others, the rest of them, the other half.
- What it is told (`Behaviour`) stands in the control file, which is read at each request: no restart.
- `fork` changes the oldest record, and with it the whole log; every other misbehaviour is one answer's.
- As sum.golang.org: 404 for `supported`, partial tiles of any width up to the log's size.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import functools
import hashlib
import json
import re
import secrets
import time
import urllib.parse
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.lab import proc, webserver
from tests.lab.pki import Certificate
from tests.lab.proc import Place

NAME = "sum.lab.example"


@dataclasses.dataclass(frozen=True, slots=True)
class Behaviour:
    """How requests are answered.

    `size` records are shown, of those there are (0: all); `fork`: of another log; `wrong` is "signature",
    "hash" (in a record, its place in the log is another), "tile" or ""; `status` instead of every answer
    (0: none), `hang` seconds before each, both where `only` (a regular expression) is in the path.
    """

    size: int = 0
    fork: bool = False
    wrong: str = ""
    status: int = 0
    hang: float = 0.0
    only: str = ""


class Log:
    """The log over `records`, by RFC 6962; slow and plain, on purpose not the code that it tests."""

    def __init__(self, records: list[str], name: str, secret: bytes) -> None:
        self.records, self.name = records, name
        self._key = Ed25519PrivateKey.from_private_bytes(secret)
        public = b"\x01" + self._key.public_key().public_bytes_raw()
        self._hash = hashlib.sha256(name.encode() + b"\n" + public).digest()[:4]
        self.verifier_key = f"{name}+{self._hash.hex()}+{base64.b64encode(public).decode()}"
        self._node = functools.lru_cache(maxsize=None)(self._tree)

    def _tree(self, start: int, end: int) -> bytes:
        if end - start < 2:
            leaf = hashlib.sha256(b"\x00" + self.records[start].encode() if end > start else b"")
            return leaf.digest()
        split = 1
        while split * 2 < end - start:
            split *= 2
        left, right = self._node(start, start + split), self._node(start + split, end)
        return hashlib.sha256(b"\x01" + left + right).digest()

    def note(self, size: int, *, wrong: bool = False) -> str:
        """The signed head of the first `size` records."""
        digest = base64.b64encode(self._node(0, size)).decode()
        text = f"go.sum database tree\n{size}\n{digest}\n"
        signature = self._key.sign(text.encode() + (b"?" if wrong else b""))
        return f"{text}\n— {self.name} {base64.b64encode(self._hash + signature).decode()}\n"

    def tile(self, level: int, place: int, width: int, size: int) -> bytes | None:
        """A tile of the first `size` records, None where it is beyond them."""
        step = 256**level
        first = place * 256
        if (first + width) * step > size:
            return None
        return b"".join(self._node(n * step, (n + 1) * step) for n in range(first, first + width))

    def find(self, module: str, version: str, size: int) -> int | None:
        """The number of a record among the first `size`."""
        start = f"{module} {version} "
        return next((n for n, text in enumerate(self.records[:size]) if text.startswith(start)), None)


def records_of(go_sum: str, padding: int = 0) -> list[str]:
    """`padding` records, and one for each module's version of a go.sum."""
    made = [
        f"pad.lab.example/p{n} v1.0.0 h1:{base64.b64encode(hashlib.sha256(b'%d' % n).digest()).decode()}\n"
        for n in range(padding)
    ]
    grouped: dict[tuple[str, str], list[str]] = {}
    for line in sorted(go_sum.splitlines()):
        module, version, _ = line.split()
        grouped.setdefault((module, version.removesuffix("/go.mod")), []).append(line + "\n")
    wanted = ["".join(lines) for lines in grouped.values()]
    half, third = len(wanted) // 2, padding // 3
    return made[:third] + wanted[:half] + made[third:] + wanted[half:]


class SumDatabase(proc.PythonService):
    """Such a server, for the modules of a go.sum.  Without a certificate it speaks plain http."""

    module = "sumdb"

    def __init__(
        self,
        directory: Path,
        go_sum: str,
        *,
        padding: int = 600,
        name: str = NAME,
        certificate: Certificate | None = None,
        host: str = "",
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        super().__init__(directory, place=place, address=address, port=port, listen=listen)
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self.host = certificate, host
        self._secret = secrets.token_bytes(32)
        self.log_of_sums = Log(records_of(go_sum, padding), name, self._secret)
        self.size = len(self.log_of_sums.records)
        self._sums, self._control = directory / "records.json", directory / "control.json"
        self._access = directory / "access.jsonl"
        self._sums.write_text(json.dumps({"name": name, "records": self.log_of_sums.records}))
        self.behave()

    def behave(
        self,
        *,
        size: int = 0,
        fork: bool = False,
        wrong: str = "",
        status: int = 0,
        hang: float = 0.0,
        only: str = "",
    ) -> None:
        """Answer like this from the next request on; without arguments: well."""
        new = self._control.with_suffix(".new")
        behaviour = Behaviour(size, fork, wrong, status, hang, only)
        new.write_text(json.dumps(dataclasses.asdict(behaviour)))
        new.replace(self._control)

    @property
    def url(self) -> str:
        """Its URL by name (its address where it has none)."""
        return f"{'https' if self.certificate else 'http'}://{self.host or self.address}:{self.port}"

    @property
    def key(self) -> str:
        """`NAME+HASH+KEY`."""
        return self.log_of_sums.verifier_key

    @property
    def gosumdb(self) -> str:
        """What go is told: its key and its URL."""
        return f"{self.key} {self.url}"

    def requests(self, pattern: str = "") -> list[str]:
        """The paths that were asked for, in order, which match the regular expression."""
        paths = [str(record["path"]) for record in webserver.read_log(self._access)]
        return [path for path in paths if re.search(pattern, path)]

    def _arguments(self) -> list[str]:
        words = ["--secret", self._secret.hex(), "--sums", str(self._sums)]
        words += ["--control", str(self._control), "--log", str(self._access)]
        if self.certificate:
            words += ["--cert", str(self.certificate.cert), "--key", str(self.certificate.key)]
        return words


class _Handler(webserver.Handler):
    good: Log
    forked: Log
    control: Path
    log: webserver.JsonLog

    def do_GET(self) -> None:
        """Answer from the log."""
        behaviour = Behaviour(**json.loads(self.control.read_text()))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.log.write(path=path)
        if re.search(behaviour.only, path):
            time.sleep(behaviour.hang)
            if behaviour.status:
                self.answer(behaviour.status, b"the lab was told to answer so\n")
                return
        body = self._body(path.strip("/"), behaviour)
        if body is None:
            self.answer(404, f"not found: {path}\n".encode())
        else:
            self.answer(200, body)
        self.wfile.flush()

    def _body(self, path: str, behaviour: Behaviour) -> bytes | None:
        log = self.forked if behaviour.fork else self.good
        size = behaviour.size or len(log.records)
        note = log.note(size, wrong=behaviour.wrong == "signature")
        if path == "latest":
            return note.encode()
        if found := re.fullmatch(r"lookup/(.+)@(.+)", path):
            module, version = (re.sub("!(.)", lambda m: m[1].upper(), part) for part in found.groups())
            number = log.find(module, version, size)
            if number is None:
                return None
            text = log.records[number]
            if behaviour.wrong == "hash":
                text = re.sub(" h1:.", " h1:/", text)
            return f"{number}\n{text}\n{note}".encode()
        if found := re.fullmatch(r"tile/8/(\d+)/([x0-9/]+)(?:\.p/(\d+))?", path):
            place = int(re.sub("[x/]", "", found[2]))
            tile = log.tile(int(found[1]), place, int(found[3] or 256), size)
            return tile[::-1] if tile and behaviour.wrong == "tile" else tile
        return None


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--secret", required=True)
    parser.add_argument("--sums", type=Path, required=True)
    parser.add_argument("--control", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--cert", default="")
    parser.add_argument("--key", default="")
    args = parser.parse_args()
    told, secret = json.loads(args.sums.read_text()), bytes.fromhex(args.secret)
    other = ["fork.lab.example/x v1.0.0 h1:AAAA\n", *told["records"][1:]]
    _Handler.good = Log(told["records"], told["name"], secret)
    _Handler.forked = Log(other, told["name"], secret)
    _Handler.control, _Handler.log = args.control, webserver.JsonLog(args.log)
    webserver.serve(webserver.Server(args.address, args.port, _Handler, args.cert, args.key))


if __name__ == "__main__":
    main()
