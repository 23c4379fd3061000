"""h1 sums and escaped paths, against sums that the world agrees on and against the go command itself."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

from gotunnel.modproxy.dirhash import escape, h1_of_go_mod, h1_of_zip, unescape
from tests.conftest import need
from tests.lab.gotool import can_run_go, go_env


def test_the_sum_of_a_published_go_mod() -> None:
    data = b'module "rsc.io/quote"\n\nrequire "rsc.io/sampler" v1.3.0\n'
    # as in sum.golang.org for rsc.io/quote v1.5.2/go.mod
    assert h1_of_go_mod(data) == "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0="


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


FILES = {
    "x.example/Up@v1.2.3/go.mod": b"module x.example/Up\n\ngo 1.17\n",
    "x.example/Up@v1.2.3/z.go": b"package up\n",
    "x.example/Up@v1.2.3/Big.go": b"package up\n\nvar Big = 1\n",
    "x.example/Up@v1.2.3/testdata/ä.txt": b"bytewise: after every ASCII name\n",
    "x.example/Up@v1.2.3/empty": b"",
}


def test_order_and_compression_don_t_count_but_names_and_content_do() -> None:
    base = h1_of_zip(io.BytesIO(zip_of(FILES)))
    assert h1_of_zip(io.BytesIO(zip_of(dict(reversed(FILES.items())), zipfile.ZIP_STORED))) == base
    name, data = next(iter(FILES.items()))
    assert h1_of_zip(io.BytesIO(zip_of(FILES | {name: data + b"\n"}))) != base
    assert h1_of_zip(io.BytesIO(zip_of({**FILES, "x.example/Up@v1.2.3/new": b""}))) != base


def test_names_are_taken_as_bytes_whatever_the_flag_says() -> None:
    flagged = zip_of({"m@v1.0.0/ä": b""})
    bare = flagged
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = bare.index(header) + offset
        assert bare[at + 1] & 0x08
        bare = bare[: at + 1] + bytes([bare[at + 1] & ~0x08]) + bare[at + 2 :]
    assert h1_of_zip(io.BytesIO(bare)) == h1_of_zip(io.BytesIO(flagged))


def test_go_computes_the_same_sums(tmp_path: Path) -> None:
    need(can_run_go())
    versions = tmp_path / "source" / escape("x.example/Up") / "@v"
    versions.mkdir(parents=True)
    go_mod = FILES["x.example/Up@v1.2.3/go.mod"]
    (versions / "v1.2.3.info").write_text('{"Version": "v1.2.3"}')
    (versions / "v1.2.3.mod").write_bytes(go_mod)
    (versions / "v1.2.3.zip").write_bytes(zip_of(FILES))
    (tmp_path / "go.mod").write_text("module main.example\n\ngo 1.17\n")
    env = go_env(tmp_path / "env", proxy=f"file://{tmp_path}/source")
    answer = subprocess.run(
        ["go", "mod", "download", "-json", "x.example/Up@v1.2.3"],
        cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr + answer.stdout
    told = json.loads(answer.stdout)
    assert told["Sum"] == h1_of_zip(str(versions / "v1.2.3.zip"))
    assert told["GoModSum"] == h1_of_go_mod(go_mod)


@pytest.mark.parametrize("broken", [b"", b"<html>captive</html>", zip_of(FILES)[:-30]])
def test_what_is_no_zip_is_a_value_error(broken: bytes) -> None:
    with pytest.raises(ValueError, match="not a valid module zip"):
        h1_of_zip(io.BytesIO(broken))


def test_a_zip_with_a_damaged_file_is_a_value_error() -> None:
    data = bytearray(zip_of(FILES, zipfile.ZIP_STORED))
    at = data.index(b"package up")
    data[at] ^= 1
    with pytest.raises(ValueError, match="not a valid module zip"):
        h1_of_zip(io.BytesIO(bytes(data)))


def test_escaped_paths_and_back() -> None:
    assert escape("github.com/Azure/azure-SDK") == "github.com/!azure/azure-!s!d!k"
    assert escape("v1.0.0-RC1+incompatible") == "v1.0.0-!r!c1+incompatible"
    assert unescape("github.com/!azure/azure-!s!d!k") == "github.com/Azure/azure-SDK"
    for wrong in ("A", "a!", "a!B", "!!a", "a!1", "ä"):
        with pytest.raises(ValueError, match="not an escaped"):
            unescape(wrong)
    for wrong in ("a!b", "ä"):
        with pytest.raises(ValueError, match="no module path"):
            escape(wrong)
