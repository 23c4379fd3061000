"""Questions of the GOPROXY protocol, and what must never become the name of a file."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.target import LONGEST, Kind, of, parse
from gotunnel.storage.store import check_name

EXAMPLES = int(os.environ.get("GOTUNNEL_FUZZ", "300"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=EXAMPLES <= 300,
)
pytestmark = pytest.mark.timeout(7200 if EXAMPLES > 300 else 120)


@pytest.mark.parametrize(
    ("path", "kind", "module", "version"),
    [
        ("/golang.org/x/mod/@v/list", "list", "golang.org/x/mod", ""),
        ("golang.org/x/mod/@latest", "latest", "golang.org/x/mod", ""),
        ("github.com/%21burnt%21sushi/toml/@v/v1.2.3.mod", "mod", "github.com/BurntSushi/toml", "v1.2.3"),
        ("github.com/!burnt!sushi/toml/@v/v1.2.3.info", "info", "github.com/BurntSushi/toml", "v1.2.3"),
        ("a.example/b/@v/v2.0.0+incompatible.zip", "zip", "a.example/b", "v2.0.0+incompatible"),
        ("a.example/b/@v/v2.0.0%2Bincompatible.info", "info", "a.example/b", "v2.0.0+incompatible"),
        ("a.example/b/v2/@v/v2.1.0.info", "info", "a.example/b/v2", "v2.1.0"),
        # go lets the source answer with another version here: v2.0.0+incompatible
        ("a.example/b/@v/v2.0.0.info", "query", "a.example/b", "v2.0.0"),
        ("a.example/b/@v/master.info", "query", "a.example/b", "master"),
        ("a.example/b/@v/fix%2312.info", "query", "a.example/b", "fix#12"),
        ("a.example/b/@v/v1.2.info", "query", "a.example/b", "v1.2"),
        ("gopkg.in/yaml.v3/@v/v3.0.1.info", "info", "gopkg.in/yaml.v3", "v3.0.1"),
        ("golang.org/toolchain/@v/v0.0.1-go1.27.0.linux-amd64.zip", "zip", "golang.org/toolchain",
         "v0.0.1-go1.27.0.linux-amd64"),
    ],
)  # fmt: skip
def test_questions(path: str, kind: Kind, module: str, version: str) -> None:
    target = parse(path)
    assert (target.kind, target.module, target.version) == (kind, module, version)
    assert target.immutable == (kind in ("info", "mod", "zip"))


def test_checksum_database() -> None:
    for rest in ("supported", "latest", "lookup/github.com/!a/b@v1.0.0", "tile/8/1/x001/234.p/5"):
        target = parse(f"sumdb/sum.golang.org/{rest}")
        assert (target.kind, target.module, target.rest) == ("sumdb", "sum.golang.org", rest)
    assert parse("sumdb/db.example/with/path/tile/8/0/001").module == "db.example/with/path"


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "x", "a.example", "a.example/@v/", "a.example/@v/v1.0.0", "a.example/@v/v1.0.0.exe",
        "a.example/../b/@v/list", "a.example/%2e%2e/b/@v/list", "..%2f..%2fetc/@v/list",
        "a.example/b%2fc/@v/list", "a.example/b%5cc/@v/list", "a.example/b%00/@v/list",
        "a.example//b/@v/list",
        "a.example/b/@v/../../x.info", "a.example/b/@v/..info", "a.example/b/@v/%2e%2e.info",
        "a.example/B/@v/list", "a.example/!B/@v/list", "a.example/b!/@v/list", "a.example/!!b/@v/list",
        "a.example/con/@v/list", "a.example/Aux.txt/@v/list", "a.example/b~1/@v/list", "a.example/b./@v/list",
        "a.example/.b/@v/list", "-a.example/b/@v/list", "localhost/b/@v/list", "a.example/b/@v/list?x=1",
        "a.example/b/@v/v1.zip", "a.example/b/@v/master.mod", "a.example/b/@v/feature/x.info",
        "a.example/b/@v/%zz.info", "a.example/b/@v/%.info", "a.example/ä/@v/list",
        "a.example/" + "b/" * LONGEST + "@v/list", "a.example/" + "b" * 251 + "/@v/list",
        "sumdb/", "sumdb/x", "sumdb/supported", "sumdb/x/supported/y", "sumdb/x/lookup/", "sumdb/x/../latest",
        "sumdb/x/lookup/a.example/b", "sumdb/x/lookup/a.example/b@master", "sumdb/x/tile", "sumdb//latest",
    ],
)  # fmt: skip
def test_what_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z"):
        parse(path)


def test_of_makes_what_parse_reads() -> None:
    for kind in ("info", "mod", "zip"):
        made = of("github.com/BurntSushi/toml", "v1.0.0", kind)
        assert made == parse(f"github.com/%21burnt%21sushi/toml/@v/v1.0.0.{kind}")


WORDS = st.sampled_from(
    ["a.example", "/", "@v", "/@v/", "list", "v1.0.0", ".info", ".zip", ".mod", "@latest", "!a", "!", "A",
    "..", ".",
     "%", "%2f", "%21", "%00", "%2e", "sumdb", "tile", "lookup/", "con", "~1", "\\", "\0", "ä", " ",
     "+incompatible"]
)  # fmt: skip


@fuzz
@given(st.lists(WORDS | st.text(max_size=6), max_size=12).map("".join))
@example("a.example/@v/%2e%2e/x.info")
def test_any_path(path: str) -> None:
    try:
        target = parse(path)
    except ValueError as error:
        target, words = None, str(error)
    if target is None:
        assert "\n" not in words
        return
    check_name(target.name)  # the store's own idea of a safe name
    parts = PurePosixPath(target.name).parts
    assert ".." not in parts
    assert "/".join(parts) == target.name
    # it is the same question however it is written, and no two questions share a name
    assert parse(target.name.replace("%", "%25")) == target
    assert parse(quote(target.name, safe="/")) == target


@fuzz
@given(st.from_regex(r"[a-z]{1,3}\.example(/[A-Za-z0-9._~-]{1,6}){0,3}", fullmatch=True), st.integers(0, 30))
def test_names_differ_where_modules_do(module: str, minor: int) -> None:
    try:
        target = of(module, f"v1.{minor}.0", "zip")
    except ValueError:
        return
    assert (target.module, target.version) == (module, f"v1.{minor}.0")
    assert target.name == target.name.lower()
