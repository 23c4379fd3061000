"""Zips that stream by: the sum of every kind that go, Python and others write, and none of a doubtful one."""

from __future__ import annotations

import contextlib
import io
import os
import random
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.dirhash import h1_of_zip
from gotunnel.modproxy.zipsum import ZipSum, sum_of
from tests.conftest import need
from tests.lab.gotool import can_run_go, find_go, go_env

EXAMPLES = int(os.environ.get("GOTUNNEL_FUZZ", "300"))
M, V = "x.example/Up", "v1.2.3"
PREFIX = f"{M}@{V}/"
FILES = {
    "go.mod": b"module x.example/Up\n",
    "Big.go": random.Random(1).randbytes(200_000) + b"a" * 300_000,
    "tricky.bin": b"PK\x07\x08" * 9 + b"PK\x03\x04PK\x01\x02PK\x07\x08" + bytes(12) + b"PK\x07",
    "empty": b"",
    "testdata/ä ö.txt": b"umlauts\n",
}

PROGRAM = """
package main

import (
	"archive/zip"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
)

func main() {
	kinds := map[string]func(*zip.Writer, string, []byte) error{
		"deflate": func(z *zip.Writer, name string, data []byte) error {
			w, err := z.Create(name)
			if err == nil {
				_, err = w.Write(data)
			}
			return err
		},
		"store": func(z *zip.Writer, name string, data []byte) error {
			w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
			if err == nil {
				_, err = w.Write(data)
			}
			return err
		},
		"raw": func(z *zip.Writer, name string, data []byte) error {
			n := uint64(len(data))
			w, err := z.CreateRaw(&zip.FileHeader{Name: name, Method: zip.Store,
				CRC32: crc32.ChecksumIEEE(data), CompressedSize64: n, UncompressedSize64: n})
			if err == nil {
				_, err = w.Write(data)
			}
			return err
		},
	}
	for kind, add := range kinds {
		f, err := os.Create(filepath.Join(os.Args[2], kind+".zip"))
		check(err)
		z := zip.NewWriter(f)
		check(filepath.WalkDir(os.Args[1], func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			rel, _ := filepath.Rel(os.Args[1], path)
			data, err := os.ReadFile(path)
			check(err)
			return add(z, filepath.ToSlash(rel), data)
		}))
		_, err = z.Create("x.example/Up@v1.2.3/testdata/")
		check(err)
		check(z.SetComment("a comment"))
		check(z.Close())
		check(f.Close())
	}
	f, err := os.Create(filepath.Join(os.Args[2], "many.zip"))
	check(err)
	z := zip.NewWriter(f)
	for i := 0; i < 66000; i++ {
		check(kinds["raw"](z, "x.example/Up@v1.2.3/"+strconv.Itoa(i), nil))
	}
	check(z.Close())
	check(f.Close())
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
"""


def streamed(data: bytes, piece: int = 4096, *, names: bool = True) -> str:
    """The sum of a zip that comes in pieces."""
    whole = ZipSum(M, V) if names else ZipSum()
    for at in range(0, len(data), piece):
        whole.feed(data[at : at + piece])
    return whole.finish()


def info_of(name: str, method: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    return info


def zip_of(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, *, large: bool = False) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            with archive.open(info_of(name, method), "w", force_zip64=large) as file:
                file.write(data)
    return stream.getvalue()


class Unseekable(io.RawIOBase):
    """What makes zipfile write sizes behind the content."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += bytes(data)
        return len(data)


GOOD = {PREFIX + name: data for name, data in FILES.items()}
BASE = zip_of({name: data for name, data in GOOD.items() if len(data) < 1000})


def test_go_s_own_zips(tmp_path: Path) -> None:
    need(can_run_go())
    for name, data in GOOD.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "main.go").write_text(PROGRAM)
    argv = [find_go() or "go", "run", "main.go", "tree", "."]
    done = subprocess.run(
        argv, cwd=tmp_path, env=go_env(tmp_path / "go"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    sums = set()
    for kind in ("deflate", "store", "raw"):
        path = tmp_path / f"{kind}.zip"
        sum_of(path, M, V)
        for piece in (7, 4096, 1 << 20):
            assert streamed(path.read_bytes(), piece) == h1_of_zip(str(path)), (kind, piece)
        sums.add(h1_of_zip(str(path)))
    assert len(sums) == 1
    many = tmp_path / "many.zip"  # more than 65535 entries: zip64
    assert streamed(many.read_bytes(), 1 << 18) == h1_of_zip(str(many))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("large", [False, True])
def test_python_s_zips(method: int, large: bool) -> None:
    data = zip_of(GOOD, method, large=large)
    wanted = h1_of_zip(io.BytesIO(data))
    assert streamed(data) == streamed(data, 1 << 20) == wanted
    behind = Unseekable()
    with zipfile.ZipFile(behind, "w", method) as archive:
        for name, content in GOOD.items():
            with archive.open(info_of(name, method), "w", force_zip64=large) as file:
                file.write(content)
    assert streamed(behind.data) == wanted


def test_byte_by_byte_and_without_names() -> None:
    assert streamed(BASE, 1) == streamed(BASE, names=False) == h1_of_zip(io.BytesIO(BASE))
    elsewhere = zip_of({"elsewhere/x": b"y"})
    assert streamed(elsewhere, names=False) == h1_of_zip(io.BytesIO(elsewhere))


def patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(mark) + offset
    return data[:at] + value + data[at + len(value) :]


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
LIES = {
    "nothing": b"",
    "no zip": b"<html>log in here</html>",
    "cut": BASE[:-1],
    "cut in a file": BASE[:60],
    "behind its end": BASE + b"x",
    "twice": BASE + BASE,
    "something before": b"#!/bin/sh\n" + BASE,
    "local crc": patched(BASE, LOCAL, 14, b"\0\0\0\0"),
    "local name": patched(BASE, LOCAL, 30 + len(PREFIX), b"gO"),
    "directory's name": patched(BASE, CENTRAL, 46 + len(PREFIX), b"gO"),
    "directory's size": patched(BASE, CENTRAL, 24, b"\x01"),
    "directory's offset": patched(BASE, CENTRAL, 42, b"\x01"),
    "encrypted": patched(patched(BASE, LOCAL, 6, b"\x01"), CENTRAL, 8, b"\x01"),
    "another method": patched(BASE, LOCAL, 8, b"\x0c"),
    "fewer in the end": patched(BASE, END, 8, b"\x01\0\x01\0"),
    "deflate broken": patched(BASE, LOCAL, 30 + len(PREFIX) + 6, b"\xff\xff\xff\xff"),
    "hidden": BASE[: BASE.rindex(CENTRAL)] + BASE[BASE.index(END) :],
}


@pytest.mark.parametrize("kind", LIES)
def test_what_two_readers_could_see_differently_has_no_sum(kind: str) -> None:
    for piece in (1, 1 << 20):
        with pytest.raises(ValueError, match="not a valid module zip"):
            streamed(LIES[kind], piece)


def test_a_broken_one_stays_broken() -> None:
    whole = ZipSum()
    with pytest.raises(ValueError, match="no entry"):
        whole.feed(b"PK00" + bytes(30))
    with pytest.raises(ValueError, match="not a valid"):
        whole.feed(BASE)
    with pytest.raises(ValueError, match="not a valid"):
        whole.finish()


BAD_NAMES = [
    ["elsewhere/x"], [M + "@v1.2.4/x"], [PREFIX + "../x"], [PREFIX + "a/./b"], [PREFIX + "a//b"],
    [PREFIX + "/etc/passwd"], [PREFIX + "a\\b"], [PREFIX + "a:b"], [PREFIX + "a\nb"], [PREFIX + "NUL.txt"],
    [PREFIX + "a/com1"], [PREFIX + "dot."], [PREFIX + "sub/go.mod"], [PREFIX + "GO.mod"],
    [PREFIX + "a", PREFIX + "A"], [PREFIX + "dir/a", PREFIX + "DIR/b"], [PREFIX + "a", PREFIX + "a/b"],
    [PREFIX + "a/b", PREFIX + "a"], [PREFIX + "k", PREFIX + "\u212a"], [PREFIX + "☃"],
]  # fmt: skip


READER = """
package main

import (
	"archive/zip"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func read(path string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func main() {
	paths, _ := filepath.Glob(filepath.Join(os.Args[1], "*.zip"))
	for _, path := range paths {
		if err := read(path); err != nil {
			fmt.Println(filepath.Base(path), err)
		}
	}
	fmt.Println(len(paths))
}
"""


@pytest.mark.parametrize("mask", [0xFF, 0x01])
def test_what_has_the_right_sum_can_be_read_by_go(tmp_path: Path, mask: int) -> None:
    """One byte was changed on the way: zipfile reads over it in many places where go's reader gives up, and
    the module would fail with `unexpected EOF` as long as the store has it."""
    need(can_run_go())
    (tmp_path / "main.go").write_text(READER)
    taken, path = tmp_path / "taken", tmp_path / "m.zip"
    taken.mkdir()
    by_python = 0
    for at, byte in enumerate(BASE):
        data = BASE[:at] + bytes([byte ^ mask]) + BASE[at + 1 :]
        with contextlib.suppress(ValueError):
            by_python += h1_of_zip(io.BytesIO(data)) == h1_of_zip(io.BytesIO(BASE))
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            if sum_of(path, M, V) == h1_of_zip(io.BytesIO(BASE)):
                (taken / f"{at}.zip").write_bytes(data)
    argv = [find_go() or "go", "run", "main.go", "taken"]
    env = go_env(tmp_path / "go")
    told = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout
    count = len(list(taken.iterdir()))
    assert told == f"{count}\n"
    assert 10 < count < by_python


@pytest.mark.parametrize("names", BAD_NAMES)
def test_names_that_go_refuses(tmp_path: Path, names: list[str]) -> None:
    data = zip_of(dict.fromkeys(names, b""))
    path = tmp_path / "m.zip"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="not a valid module zip") as caught:
        sum_of(path, M, V)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="not a valid module zip"):
        streamed(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_double_entries_and_large_ones(tmp_path: Path) -> None:
    stream, path = io.BytesIO(), tmp_path / "m.zip"
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(PREFIX + "a", b"1")
        archive.writestr(PREFIX + "a", b"2")
    path.write_bytes(stream.getvalue())
    with pytest.raises(ValueError, match="two entries"):
        sum_of(path, M, V)
    with pytest.raises(ValueError, match="two entries"):
        streamed(stream.getvalue())
    large = zip_of({PREFIX + "go.mod": bytes((16 << 20) + 1)})
    path.write_bytes(large)
    with pytest.raises(ValueError, match=r"go\.mod is larger than 16 MiB"):
        sum_of(path, M, V)
    bomb = zip_of({PREFIX + f"b{n}": bytes(100 << 20) for n in range(1)})
    lying = bomb.replace(struct.pack("<L", 100 << 20), struct.pack("<L", 600 << 20))
    path.write_bytes(lying)
    with pytest.raises(ValueError, match="isn't what its header says"):
        sum_of(path, M, V)
    with pytest.raises(ValueError, match="isn't what its header says"):
        streamed(lying)


def test_what_go_allows_is_allowed(tmp_path: Path) -> None:
    names = ["a", "a~1", "b/c", "b/", "ß", "ss", "x !#$%&()+,-.=@[]^_{}~", ".hidden", "-dash", "名前.go", ""]
    path = tmp_path / "m.zip"
    path.write_bytes(zip_of({PREFIX + name: b"" for name in names}))
    sum_of(path, M, V)
    assert streamed(path.read_bytes()) == h1_of_zip(str(path))


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 300,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.binary(max_size=5)), max_size=4), st.integers(1, 999)
)
def test_altered_zips_are_refused_or_whole(
    tmp_path: Path, changes: list[tuple[int, bytes]], piece: int
) -> None:
    data = BASE
    for at, content in changes:
        data = data[:at] + content + data[at + len(content) :]
    path = tmp_path / "m.zip"
    path.write_bytes(data)
    try:
        found = streamed(data, piece)
    except ValueError:
        with pytest.raises(ValueError, match="not a valid module zip"):
            sum_of(path, M, V)
        return
    assert found == sum_of(path, M, V) == h1_of_zip(str(path))
