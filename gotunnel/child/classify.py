"""Was it the network, and is the command worth repeating?  Pure: no I/O, no clock.

Rules:
- Repeated is only what another way out may mend, and only where a repeat does no harm: by itself a command
  of go's that got no further than loading modules; any other command only if the user gave --retries.
- `go test`, `go run` and `go generate` start other people's programs.  Standard output isn't seen here, so
  they have got past loading unless standard error is nothing but go's own loading output; and a `go test`
  of several packages has run the tests of those that did load, unless go stopped before any (`go: …`).
  `go tool X` prints no word of its own, so its output can't be told from X's: never repeated.
- Of several failures, one that nothing mends decides: the repeat would fail on it again.  Except where the
  other failure may have brought it about: see `_FOLLOWS`.
- A command whose standard output is data (`go list`, `go mod download -json`) is not repeated either.
- sum.mismatch is worth one more fetch over another way, never a second, and never a bypass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gotunnel.address import one_line, redact
from gotunnel.dataclass import dataclass
from gotunnel.findings.catalogue import kind, mendable

if TYPE_CHECKING:
    from gotunnel.findings.reader import Blocks, Match, Reader

_KEPT = 500  # matches; a log with more of them says nothing new

_GO = re.compile(r"go(?:tip|dev|-dev|[1-9]\d*(?:\.\d+)*(?:(?:rc|beta)\d+)?(?:-\w+)?)?")
_LOADING = re.compile(
    rb"go: |# |\t|$|verifying \S+: checksum mismatch|SECURITY ERROR|This download does NOT|The bits may have|"
    rb"have intercepted|For more information|Confirm the import path|If this is a private repository|"
    rb"[^\s:]+\.go:\d+:\d+: "
)
_PER_PACKAGE = re.compile(rb"[^\s:]+\.go:\d+:\d+: ")
_TEST_SWITCHES = re.compile(
    r"a|artifacts|asan|benchmem|buildvcs|c|cover|failfast|fullpath|h|help|i|json|linkshared|modcacherw|msan|n|"
    r"race|short|trimpath|v|vet|work|x"
)

# What can be the consequence of a failure that another way mends: a package is "not provided by any module"
# or has "no matching versions" also when the source that has it couldn't be asked (a status 404 or 410 is
# the source's own word and no consequence), and a login page has no go-import tags.
_FOLLOWS: dict[str, frozenset[str] | None] = {
    "module.not-found": None,  # of any mendable failure
    "import.no-meta": frozenset({"http.captive-portal", "tls.intercepted", "dns.hijacked"}),
}


# what our own configuration forbids (`modproxy.filter`, `route.RejectDialer`) it forbids by every way out
_OWN_RULES = re.compile(r": (?:the filter denies|rejected by) ")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`finding` None: nothing of ours to say.  `once`: one repeat at most, whatever --retries says.
    `detail` is the line that tells it and `reason` a sentence; both fit for showing."""

    finding: str | None
    detail: str
    retry: bool
    reason: str
    once: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """What the lines were.  `foreign`: some aren't go's loading output.  `per_package`: an error of one
    package (FILE.go:L:C:), with which go goes on to the others."""

    foreign: bool = False
    per_package: bool = False


class Output:
    """Takes CMD's standard error as it comes; keeps what `classify` needs, in bounded memory.

    The patterns, which take 10 ms to compile, are imported when the first of it comes.
    """

    def __init__(self) -> None:
        self._parts: tuple[Blocks, Reader] | None = None
        self._matches: list[Match] = []
        self._foreign = self._per_package = False

    def feed(self, data: bytes) -> None:
        """More output."""
        if self._parts is None:
            from gotunnel.findings.reader import Blocks, Reader

            self._parts = Blocks(), Reader()
        blocks, reader = self._parts
        self._take(reader, blocks.feed(data))

    def verdict(self, argv: Sequence[str], status: int, *, allow_any: bool = False) -> Verdict:
        """At the end of CMD; see `classify`."""
        if self._parts is not None:
            blocks, reader = self._parts
            self._take(reader, blocks.finish())
            self._matches += reader.last()
        shape = Shape(self._foreign, self._per_package)
        return classify(argv, status, self._matches, shape, allow_any=allow_any)

    def _take(self, reader: Reader, block: bytes) -> None:
        if not block:
            return
        for match in reader.scan(block):
            if len(self._matches) < _KEPT:
                self._matches.append(match)
        if self._foreign:
            return  # decides alone
        for line in block.split(b"\n"):
            if line.startswith(b"gotunnel: "):
                continue
            self._foreign = self._foreign or not _LOADING.match(line)
            self._per_package = self._per_package or bool(_PER_PACKAGE.match(line))


def is_go_command(argv: Sequence[str]) -> bool:
    """True for go, go1.26, go1.26.8, gotip and paths to them, with or without .exe."""
    name = re.split(r"[/\\]", argv[0])[-1] if argv else ""
    return _GO.fullmatch(name.removesuffix(".exe")) is not None


def go_verb(argv: Sequence[str]) -> tuple[str, ...]:
    """("mod", "tidy"), ("test",), ("tool", "NAME"); () without any.  `-C DIR` may stand before each word."""
    words: list[str] = []
    rest = list(argv[1:])
    while rest and len(words) < 2:
        word = rest.pop(0)
        if word in ("-C", "--C"):
            rest = rest[1:]
        elif word.startswith("-"):
            if words and not word.startswith(("-C=", "--C=")):
                break  # the verb's own flags
        else:
            words.append(word)
            if word not in ("mod", "work", "tool", "telemetry"):
                break
    return tuple(words)


# commands of go's that never ask for a module, as far as the command line tells
_LOCAL = frozenset({"version", "env", "fmt", "help", "bug", "clean", "doc", "fix", "telemetry", "tool", ""})
_LOCAL_MOD = frozenset({"edit", "init"})


def loads_modules(argv: Sequence[str]) -> bool:
    """True for a command of go's that may have to load modules."""
    if not is_go_command(argv):
        return False
    verb = (*go_verb(argv), "", "")
    return verb[0] not in _LOCAL and not (verb[0] in ("mod", "work") and verb[1] in _LOCAL_MOD)


def classify(
    argv: Sequence[str],
    status: int,
    matches: Iterable[Match],
    shape: Shape | None = None,
    *,
    allow_any: bool = False,
) -> Verdict:
    """The verdict on a CMD that ended with `status` (negative or above 128: by a signal).

    `allow_any`: the user gave --retries, so commands other than go may be repeated.
    """
    shape = shape or Shape()
    seen = list(matches)
    cause, network = _cause(seen)
    go = is_go_command(argv)
    verb = go_verb(argv) if go else ()
    if status == 0:
        # `-e` makes tidy and vendor succeed in spite of modules that didn't come.  A repeat is harmless:
        # both only bring go.mod, go.sum and vendor up to date again.
        if not (verb in (("mod", "tidy"), ("mod", "vendor")) and "-e" in argv[1:] and cause):
            return Verdict(None, "", False, "it succeeded")
    elif status < 0 or status > 128:
        return _no(cause, "it was ended by a signal")
    elif status in (126, 127):
        return _no(cause, "it could not be run")
    if cause is None:
        return Verdict(
            "unknown" if go and not _runs_programs(verb) else None, "", False, "no network failure seen"
        )
    if not network:
        return _no(cause, f"another way doesn't mend it: {kind(cause.id).summary}")
    if not go and not allow_any:
        return _no(cause, "not a command of go's: --retries N would repeat it")
    if why := _started_programs(argv, verb, shape):
        return _no(cause, why)
    if go and _writes_data(argv, verb):
        return _no(cause, "what it has written to standard output would be written twice")
    again = "once more, over another way" if cause.id == "sum.mismatch" else "another way may mend it"
    if status == 0:
        again += " (-e made it succeed all the same)"
    return Verdict(cause.id, _detail(cause), True, again, once=cause.id == "sum.mismatch")


def _no(cause: Match | None, reason: str) -> Verdict:
    return Verdict(cause.id if cause else None, _detail(cause) if cause else "", False, reason)


def _cause(seen: Sequence[Match]) -> tuple[Match | None, bool]:
    """The failure that decides, and whether a repeat may mend everything.

    Among equals the listener's exact words come first, then what was printed first: go prints causes
    before consequences.
    """
    ordered = sorted(seen, key=lambda match: (match.weak, not match.exact))
    mends = [match for match in ordered if _mendable(match)]
    finals = [match for match in ordered if not _mendable(match) and not _follows(match, mends)]
    if finals:
        return finals[0], False
    # a mismatch is what a person must hear of, whatever else went wrong
    mends.sort(key=lambda match: match.id != "sum.mismatch")
    return (mends[0], True) if mends else (None, False)


def _mendable(match: Match) -> bool:
    return mendable(match.id) and not (match.exact and _OWN_RULES.search(match.groups.get("words", "")))


def _follows(final: Match, mends: Sequence[Match]) -> bool:
    if final.id not in _FOLLOWS or "status" in final.groups or final.exact:
        return False
    causes = _FOLLOWS[final.id]
    return any(causes is None or match.id in causes for match in mends)


def _runs_programs(verb: tuple[str, ...]) -> bool:
    return verb[:1] in (("test",), ("run",), ("generate",), ("tool",))


def _started_programs(argv: Sequence[str], verb: tuple[str, ...], shape: Shape) -> str:
    """Why a command that starts other programs may have done so already; "" if it surely hasn't."""
    if not _runs_programs(verb):
        return ""
    name = f"go {verb[0]}"
    if verb[0] == "tool":
        return "go tool's output can't be told from the tool's: it may have run"
    if shape.foreign:
        return f"{name} got past loading modules"
    if shape.per_package and (verb[0] == "generate" or (verb[0] == "test" and not _one_package(argv))):
        return f"{name} may have gone on with the other packages"
    return ""


def _writes_data(argv: Sequence[str], verb: tuple[str, ...]) -> bool:
    """Does somebody read its standard output?  `go mod download -json` puts even its failures there."""
    json = any(word in ("-json", "--json") or word.startswith(("-json=", "--json=")) for word in argv)
    return verb == ("list",) or (json and verb == ("mod", "download"))


def _one_package(argv: Sequence[str]) -> bool:
    """Does `go test` name a single package?  In doubt it doesn't."""
    packages: list[str] = []
    rest = list(argv[argv.index("test") + 1 :])
    while rest and rest[0] not in ("-args", "--args"):
        word = rest.pop(0)
        if not word.startswith("-"):
            packages.append(word)
        elif "=" not in word and not _TEST_SWITCHES.fullmatch(word.lstrip("-").removeprefix("test.")):
            rest = rest[1:]  # the flag's value
    if any("..." in word or word in ("all", "work", "tool", "std", "cmd") for word in packages):
        return False
    return len(packages) <= 1 or all(word.endswith(".go") for word in packages)


def _detail(match: Match) -> str:
    text = match.groups.get("words", "") if match.exact else match.line
    return one_line(redact(text.strip().removeprefix("go: ")), 300)
