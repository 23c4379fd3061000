"""By what a file is vouched for: the table of the rules."""

from __future__ import annotations

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.verify import TOOLCHAIN, Verifier

M, V, GOOD, BAD = "a.example/m", "v1.0.0", "h1:good=", "h1:bad="
LISTED = GoSum.parse(f"{M} {V} {GOOD}\n{M} {V}/go.mod h1:mod=\n")
NOTHING = GoSum()


class Database:
    """Answers what it is given."""

    name = "sum.example"

    def __init__(self, answer: dict[str, str] | ModuleError) -> None:
        self.given, self.asked = answer, 0

    async def lookup(self, module: str, version: str) -> dict[str, str]:
        self.asked += 1
        if isinstance(self.given, ModuleError):
            raise self.given
        return self.given


def database() -> Database:
    return Database({V: GOOD, f"{V}/go.mod": "h1:mod="})


@pytest.mark.parametrize(("sums", "nosumdb", "by", "wanted", "asked"), [
    (LISTED, "", "", "gosum", 0),
    (LISTED, "", "gosum", "gosum", 0),
    (LISTED, "", "none", "gosum", 0),
    (LISTED, "", "sumdb:sum.example", "sumdb:sum.example", 0),
    (LISTED, "a.example", "", "gosum", 0),
    (NOTHING, "", "", "sumdb:sum.example", 1),
    (NOTHING, "", "gosum", "sumdb:sum.example", 1),  # another project's go.sum is no proof for this one
    (NOTHING, "", "none", "sumdb:sum.example", 1),
    (NOTHING, "", "sumdb:sum.example", "sumdb:sum.example", 0),
    (NOTHING, "b.example,a.*", "", "none", 0),
    (NOTHING, "a.example/m/sub", "", "sumdb:sum.example", 1),
])  # fmt: skip
async def test_who_decides(sums: GoSum, nosumdb: str, by: str, wanted: str, asked: int) -> None:
    db = database()
    verifier = Verifier(sums, nosumdb, db)
    assert await verifier.check(M, V, "zip", GOOD, by) == wanted
    assert await verifier.check(M, V, "mod", "h1:mod=", by) == wanted
    assert db.asked == asked * 2


@pytest.mark.parametrize(("sums", "by", "who"), [
    (LISTED, "", "go.sum"),
    (LISTED, "sumdb:sum.example", "go.sum"),  # the project's word is the last
    (NOTHING, "", "checksum database sum.example"),
    (NOTHING, "gosum", "checksum database sum.example"),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["zip", "mod"])
async def test_other_bytes_are_never_taken(sums: GoSum, by: str, who: str, kind: str) -> None:
    with pytest.raises(ModuleError, match=f"came as {BAD}, but {who} says h1:") as caught:
        await Verifier(sums, "", database()).check(M, V, "zip" if kind == "zip" else "mod", BAD, by)
    assert (caught.value.finding, caught.value.subject) == ("sum.mismatch", f"{M}@{V}")


async def test_without_a_database() -> None:
    verifier = Verifier(LISTED, "", None)
    assert await verifier.check("b.example", V, "zip", GOOD) == "none"
    assert await verifier.check(M, V, "zip", GOOD) == "gosum"
    with pytest.raises(ModuleError, match="but GOSUMDB is off") as caught:
        await verifier.check(TOOLCHAIN, "v0.0.1-go1.26.0.linux-amd64", "zip", GOOD)
    assert caught.value.finding == "sum.unverifiable"


async def test_a_toolchain_is_always_asked_for() -> None:
    db = database()
    assert await Verifier(NOTHING, "golang.org", db).check(TOOLCHAIN, V, "zip", GOOD) == "sumdb:sum.example"
    assert db.asked == 1


@pytest.mark.parametrize(("answer", "finding", "status", "words"), [
    (ModuleError("module.not-found", "404", http_status=404), "sum.unverifiable", 502, "set GOPRIVATE"),
    (ModuleError("http.timeout", "slow", http_status=504), "sum.unverifiable", 504, f"{M}@{V}: slow"),
    (ModuleError("sum.mismatch", "it forked"), "sum.mismatch", 502, "it forked"),
    ({f"{V}/go.mod": GOOD}, "sum.unverifiable", 502, f"no sum for {M} {V}"),
])  # fmt: skip
async def test_what_can_t_be_verified_is_no_404(
    answer: dict[str, str] | ModuleError, finding: str, status: int, words: str
) -> None:
    with pytest.raises(ModuleError, match=words) as caught:
        await Verifier(NOTHING, "", Database(answer)).check(M, V, "zip", GOOD)
    assert (caught.value.finding, caught.value.http_status) == (finding, status)
