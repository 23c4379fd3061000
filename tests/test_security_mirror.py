"""A mirror that lies: other bytes, files that want to be elsewhere, answers without an end, ways into our net."""

# ruff: noqa: E501
from __future__ import annotations

import gzip
import io
import json
import os
import socket
import subprocess
import zipfile
from collections.abc import Callable, Iterator

import pytest

from gotunnel.modproxy.dirhash import h1_of_go_mod, h1_of_zip
from tests.conftest import need
from tests.lab import gotool
from tests.modfakes import module_zip
from tests.security import GOTUNNEL, House, Talk, house, moved, raw_reply, reply

HOST = "mirror.example:80"
MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


_number = iter(range(1, 10_000))


def serve_file(served: House, end: str, talk: Talk) -> str:
    """A module of its own whose file ending so is `talk`; its path."""
    path = f"evil{next(_number)}.example/m/{end}"
    served.world.talks[f"{HOST}/{path}"] = talk
    return path


def stored(served: House, path: str) -> list[str]:
    """What is kept of the module of `path`, anywhere in the home."""
    name = path.partition("/")[0]
    return [
        str(p)
        for p in served.directory.rglob("*")
        if name in str(p.relative_to(served.directory)) and p.is_file()
    ]


# --- files ---------------------------------------------------------------------------------------


def archive(*names: str, text: bytes = b"package m\n") -> Callable[[str], bytes]:
    def make(module: str) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{module}@v1.0.0/go.mod", f"module {module}\n")
            for name in names:
                info = zipfile.ZipInfo(name.replace("M@V", f"{module}@v1.0.0"))
                if name.endswith("link"):
                    info.external_attr = 0o120777 << 16
                file.writestr(info, text)
        return out.getvalue()

    return make


def bomb(module: str) -> bytes:
    """600 MiB in some 600 KB."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr(f"{module}@v1.0.0/go.mod", f"module {module}\n")
        for part in range(3):
            with file.open(f"{module}@v1.0.0/zeros{part}", "w", force_zip64=True) as member:
                for _ in range(200):
                    member.write(bytes(MIB))
    return out.getvalue()


ZIPS: dict[str, Callable[[str], bytes]] = {
    "outside": archive("../../../../etc/cron.d/x"),
    "absolute": archive("/etc/cron.d/x"),
    "another module": archive("other.example/m@v1.0.0/x.go"),
    "dots inside": archive("M@V/../../x.go"),
    "backslashes": archive("M@V/..\\..\\x.go"),
    "a device of Windows": archive("M@V/CON"),
    "case": archive("M@V/a.go", "M@V/A.go"),
    "an escape in a name": archive("M@V/\x1b[31mx.go"),
    "a bomb": bomb,
    "no zip": lambda module: b"PK\x03\x04" + bytes(4000),
    "a page": lambda module: b"<!doctype html><title>log in</title>",
    "nothing": lambda module: b"",
}


@pytest.mark.parametrize("kind", ZIPS)
def test_a_zip_that_is_no_module_is_neither_kept_nor_passed_on(served: House, kind: str) -> None:
    path = serve_file(served, "@v/v1.0.0.zip", reply())
    served.world.talks[f"{HOST}/{path}"] = reply(ZIPS[kind](path.partition("/@v/")[0]))
    before = served.memory()
    status, body = served.module(path)
    assert status in (502, 504), body
    assert b"PK" not in body
    assert body.startswith(b"gotunnel: ")
    assert body.strip().decode().isprintable()
    assert stored(served, path) == []
    assert served.memory() - before < 150 * MIB


@pytest.mark.parametrize(
    "data",
    [b'{"Version": "v1.0.0\\u001b[31m"}', b'{"Version": "v1.0.0\\n"}', b'{"Version": "../../../x"}', b'{"Version": "v1.0.1"}',
     b'{"Version": 1}', b"[" * 60_000, b'{"Version": "v1.0.0"', b"\xff\xfe", b"", b"<html>", b"null"],
)  # fmt: skip
def test_an_info_names_its_version_and_no_other_thing(served: House, data: bytes) -> None:
    path = serve_file(served, "@v/v1.0.0.info", reply(data))
    status, body = served.module(path)
    assert (status, body.strip().decode().isprintable()) == (502, True)
    assert stored(served, path) == []


@pytest.mark.parametrize(
    "data",
    [
        b"v1.0.0\n\x1b[31mv1.0.1\n",
        b"v1.0.0\x07\n",
        b"v1.0.0\0\n",
        b"\xff\n",
        b"<p>v1.0.0",
        b"v1.0.0\xc2\x9b31m\n",
    ],
)
def test_a_list_is_text_that_no_terminal_obeys(served: House, data: bytes) -> None:
    status, body = served.module(serve_file(served, "@v/list", reply(data)))
    assert (status, body.strip().decode().isprintable()) == (502, True)


def test_an_error_s_text_is_one_line_that_no_terminal_obeys(served: House) -> None:
    text = "\x1b]0;owned\x07\r\ngotunnel: all is well\n\u202egnp.exe http://u:hushhush@h/\n" * 500
    path = serve_file(
        served, "@v/list", reply(text.encode(), status="404 \x07Gone", headers="Content-Type: text/plain\r\n")
    )
    status, body = served.module(path)
    assert 400 <= status < 600
    words = body.decode()
    assert words.count("\n") == 1
    assert words.strip().isprintable()
    assert len(words) < 2000
    assert "hushhush" not in words


def test_go_takes_no_byte_that_go_sum_does_not_know(served: House) -> None:
    """A real go, a real run: neither by the first try nor by the second, and nothing is left in the store."""
    need(gotool.can_run_go())
    module = "victim.example/m"
    good = module_zip(module=module)
    mod = f"module {module}\n".encode()
    base = f"{HOST}/{module}/@v/v1.0.0"
    served.world.talks[f"{base}.zip"] = reply(module_zip("package m // evil\n", module=module))
    served.world.talks[f"{base}.mod"] = reply(mod)
    served.world.talks[f"{base}.info"] = reply(json.dumps({"Version": "v1.0.0"}).encode())
    project = served.directory / "project"
    project.mkdir()
    (project / "go.mod").write_text(f"module p\n\ngo 1.21\n\nrequire {module} v1.0.0\n")
    (project / "go.sum").write_text(
        f"{module} v1.0.0 {h1_of_zip(io.BytesIO(good))}\n{module} v1.0.0/go.mod {h1_of_go_mod(mod)}\n"
    )
    ran = subprocess.run(
        [*GOTUNNEL, "run", "--no-daemon", "--retries", "0", "--", "go", "mod", "download"],
        env=served.env, cwd=project, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "sum.mismatch" in ran.stderr
    assert not list(served.directory.rglob("victim.example/m/@v/v1.0.0.zip"))
    assert not list(served.directory.rglob("m@v1.0.0"))


# --- answers without an end ----------------------------------------------------------------------


def endless(head: bytes, piece: bytes) -> Talk:
    """Until the other side has enough, at most 64 MiB."""

    def talk(conn: socket.socket, _: bytes) -> None:
        conn.sendall(head)
        for _turn in range(64 * MIB // len(piece)):
            conn.sendall(piece)

    return talk


OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS: dict[str, Talk] = {
    "a body": endless(OK + b"\r\n", b"v1.0.0\n" * 9000),
    "chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b"v" * 65535 + b"\r\n"),
    "a chunk's size": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"f" * 65536),
    "one header": endless(OK + b"X: ", b"x" * 65536),
    "headers": endless(OK, b"X: y\r\n" * 10_000),
    "a status line": endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "trailers": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 10_000),
    "a length": raw_reply(OK + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "an error's text": endless(b"HTTP/1.1 500 No\r\nContent-Type: text/plain\r\n\r\n", b"x" * 65536),
    "no HTTP": endless(b"", b"\x16\x03\x01" * 20_000),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_given_up_and_not_kept(served: House, kind: str) -> None:
    path = serve_file(served, "@v/list", ENDLESS[kind])
    before = served.memory()
    status, body = served.module(path)
    assert status in (502, 504), body
    assert served.memory() - before < 40 * MIB
    assert stored(served, path) == []


def test_nothing_compressed_is_asked_for_or_unpacked(served: House) -> None:
    packed = gzip.compress(bytes(200 * MIB), 1)
    path = serve_file(served, "@v/list", reply(packed, headers="Content-Encoding: gzip\r\n"))
    before = served.memory()
    status, _ = served.module(path)
    assert status == 502
    assert served.memory() - before < 40 * MIB
    assert b"\r\naccept-encoding: identity\r\n" in served.world.heads[-1].lower()


# --- ways into our net ---------------------------------------------------------------------------

ELSEWHERE = ["file:///etc/passwd", "file://mirror.example/etc/passwd", "ftp://mirror.example/x", "gopher://x.example/", "data:,x",
             "//\r\nx", "http://", "http://[::1", "http://h.example:99999/", "http://a b/", "javascript:1", "\x1b[31m"]  # fmt: skip


@pytest.mark.parametrize("location", ELSEWHERE)
def test_a_redirect_leads_to_http_or_nowhere(served: House, location: str) -> None:
    before = len(served.world.asked)
    status, body = served.module(serve_file(served, "@v/list", moved(location)))
    assert status >= 400
    assert b"root:" not in body
    assert body.strip().decode().isprintable()
    assert set(served.world.asked[before:]) <= {HOST}


INSIDE = ["http://127.0.0.1:{admin}/healthz", "http://localhost:{admin}/healthz", "http://[::1]:80/", "http://169.254.169.254/latest/meta-data/",
          "http://10.0.0.1/", "http://192.168.1.1/", "http://[fd00::1]/", "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/", "http://2130706433/"]  # fmt: skip


@pytest.mark.parametrize("location", INSIDE)
def test_a_redirect_of_a_public_mirror_leads_into_no_private_net(served: House, location: str) -> None:
    before = len(served.world.asked)
    status, _ = served.module(
        serve_file(served, "@v/list", moved(location.format(admin=served.port("admin"))))
    )
    assert status >= 400
    assert set(served.world.asked[before:]) <= {HOST}


def test_redirects_end(served: House) -> None:
    path = f"evil{next(_number)}.example/m/@v/list"
    served.world.talks[f"{HOST}/{path}"] = moved(f"http://mirror.example/{path}")
    before = len(served.world.asked) + len(served.world.heads)
    assert served.module(path)[0] >= 400
    assert len(served.world.asked) + len(served.world.heads) - before < 200


def test_a_redirect_carries_no_secret(served: House) -> None:
    path = serve_file(served, "@v/list", moved("http://thief.example/x"))
    served.world.talks["thief.example:80/x"] = reply(b"v1.0.0\n")
    before = len(served.world.heads)
    assert served.module(path) == (200, b"v1.0.0\n")
    for head in served.world.heads[before:]:
        for word in (b"authorization", b"cookie", b"referer", served.secret.encode().lower()):
            assert word not in head.lower()


def test_the_service_still_works(served: House) -> None:
    path = serve_file(served, "@v/list", reply(b"v1.0.0\n"))
    assert served.module(path) == (200, b"v1.0.0\n")
    assert os.path.exists(f"/proc/{served.pid}")
    assert "Traceback" not in served.said
