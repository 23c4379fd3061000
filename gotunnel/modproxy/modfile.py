"""go.mod and go.work, read into frozen values.

Rules:
- What go accepts is accepted; what it refuses is refused by one line: `FILE:LINE: what is wrong`.
- Two things are taken more loosely.  A directive that is not known is skipped: it may be of a newer go.  A
  version is kept as it stands: go itself turns `master` into a version, and says where one is wrong.
- A string may stand in double quotes or in backquotes; text in neither holds no quote.
- Nothing is resolved: a replacement's path is as written.

Sources: golang.org/x/mod/modfile (read.go, rule.go, work.go), go.dev/ref/mod#go-mod-file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<comment>//[^\n]*)|(?P<mark>[\n()\[\]{},])"
    r'|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`\n]*`)'
    r'|(?P<word>(?!["`])(?:(?!//|/\*)[^\s()\[\]{},])+)',
    re.DOTALL,
)
_GO_VERSION = re.compile(r"([1-9][0-9]*)\.(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))?([a-z]+[0-9]+)?", re.ASCII)
_LAX_GO_VERSION = re.compile(r"v?([1-9][0-9]*\.(?:0|[1-9][0-9]*))[^0-9].*", re.ASCII)
_TOOLCHAIN = re.compile(r"default$|go1($|\.)")
_ESCAPE = re.compile(
    r"\\(?:(?P<simple>[abfnrtv\\\"])|x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-7]{3})"
    r"|u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8})|(?P<bad>.?))",
    re.DOTALL,
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, '"': 34}
_BLOCKS = {"module", "godebug", "require", "exclude", "replace", "retract", "tool", "ignore"}
_WORK_BLOCKS = {"godebug", "use", "replace"}
_WORK_ONLY = {"use"}
_WORK_ALLOWS = {"go", "toolchain", "godebug", "use", "replace"}


class ModFileError(GotunnelError):
    """A go.mod or go.work is wrong: `FILE:LINE: what`."""

    status = 78
    finding = "modfile.invalid"

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")
        self.file, self.line, self.what = file, line, what


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """One version of a module; `version` "" is every version (of a replace) or none (of a directory)."""

    path: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Require:
    """`indirect`: marked so by its comment."""

    path: str
    version: str
    indirect: bool = False


@dataclass(frozen=True, slots=True)
class Replace:
    """`new.version` is "" where `new.path` is a directory, as written."""

    old: Version
    new: Version

    @property
    def is_local(self) -> bool:
        """True where a directory stands in for the module."""
        return not self.new.version


@dataclass(frozen=True, slots=True)
class ModFile:
    """One go.mod (or go.work: then `use` has its directories as written, and there is no `module`)."""

    module: str = ""
    go: str = ""
    toolchain: str = ""
    godebug: tuple[tuple[str, str], ...] = ()
    require: tuple[Require, ...] = ()
    replace: tuple[Replace, ...] = ()
    exclude: tuple[Version, ...] = ()
    retract: tuple[tuple[str, str], ...] = ()  # lowest and highest version, both included
    tool: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    use: tuple[str, ...] = ()


def parse_mod(text: str | bytes, file: str = "go.mod", *, lax: bool = False) -> ModFile:
    """A go.mod; `lax` as go reads those of dependencies: what matters to a main module only is skipped.

    Raises ModFileError.
    """
    reader = _Reader(file, _BLOCKS, lax=lax)
    for verb, line in statements(file, _text(text), _BLOCKS):
        if verb in _WORK_ONLY or (lax and verb not in {"go", "module", "retract", "require", "ignore"}):
            continue
        reader.take(verb, line)
    return reader.done()


def parse_work(text: str | bytes, file: str = "go.work") -> ModFile:
    """A go.work.  Raises ModFileError."""
    reader = _Reader(file, _WORK_BLOCKS)
    for verb, line in statements(file, _text(text), _WORK_BLOCKS):
        if verb in _WORK_ALLOWS:
            reader.take(verb, line)
    return reader.done()


def _text(text: str | bytes) -> str:
    # go reads bytes that are no UTF-8 as U+FFFD, which it takes for a letter
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def is_directory(path: str) -> bool:
    """True where the right side of a replace is a directory: rooted, or starting with . or .."""
    return (
        path in (".", "..")
        or path.startswith(("./", ".\\", "../", "..\\", "/", "\\"))
        or (path[1:2] == ":" and path[0].isascii() and path[0].isalpha())
    )


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    words: tuple[str, ...]
    comment: str = ""

    @property
    def indirect(self) -> bool:
        fields = self.comment.removeprefix("//").split()
        return fields == ["indirect"] or (len(fields) > 1 and fields[0] == "indirect;")


def _lines(file: str, text: str) -> Iterator[Line]:
    """The lines that hold more than space and a comment."""
    number = start = 1
    words: list[str] = []
    comment = ""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ModFileError(file, number, _lexical(text, position))
        position, piece = match.end(), match[0]
        if piece == "\n":
            if words:
                yield Line(start, tuple(words), comment)
            number += 1
            words, comment = [], ""
        elif match.lastgroup == "comment":
            comment = piece.rstrip("\r")
        elif match.lastgroup != "space":
            if not words:
                start = number
            if match.lastgroup == "word" and not piece.isprintable():
                raise ModFileError(file, number, _lexical(piece, _unprintable(piece)))
            words.append(piece)
            number += piece.count("\n")  # a backslash within quotes takes the end of the line, too
    if words:
        yield Line(start, tuple(words), comment)


def _unprintable(word: str) -> int:
    return next(place for place, letter in enumerate(word) if not letter.isprintable())


def _lexical(text: str, position: int) -> str:
    if text[position] in '"`':
        return "a string that doesn't end on its line"
    if text.startswith("/*", position):
        return "comments start with //, not with /*"
    return f"unexpected character {text[position]!a}"


def statements(file: str, text: str, blocks: set[str]) -> Iterator[tuple[str, Line]]:
    """Each directive with its arguments, those in blocks too."""
    verb, opened = "", 0
    for line in _lines(file, text):
        words = line.words
        if opened:
            if words[0] != ")":
                if verb:
                    yield verb, line
                continue
            if len(words) > 1:
                raise ModFileError(file, line.number, "want a new line after )")
            opened = 0
        elif (empty := len(words) > 2 and words[-2:] == ("(", ")")) or (len(words) > 1 and words[-1] == "("):
            head = words[:-2] if empty else words[:-1]
            opened = 0 if empty else line.number
            # a block of a directive that isn't known is skipped whole
            verb = head[0] if len(head) == 1 and head[0] in blocks else ""
        else:
            yield words[0], Line(line.number, words[1:], line.comment)
    if opened:
        raise ModFileError(file, opened, "this block has no )")


@dataclass
class _Reader:
    """Collects the statements of one file."""

    file: str
    blocks: set[str]
    lax: bool = False
    single: dict[str, str] = field(default_factory=dict)
    godebug: list[tuple[str, str]] = field(default_factory=list)
    require: list[Require] = field(default_factory=list)
    replace: list[Replace] = field(default_factory=list)
    exclude: list[Version] = field(default_factory=list)
    retract: list[tuple[str, str]] = field(default_factory=list)
    plain: dict[str, list[str]] = field(default_factory=lambda: {"tool": [], "ignore": [], "use": []})

    def take(self, verb: str, line: Line) -> None:
        """One statement.  Raises ModFileError."""
        words = line.words
        try:
            if verb in ("module", "go", "toolchain"):
                self._single(verb, words)
            elif verb in ("require", "exclude"):
                path, version = map(_string, _want(words, 2, f"{verb} MODULE VERSION"))
                if verb == "require":
                    self.require.append(Require(path, version, line.indirect))
                else:
                    self.exclude.append(Version(path, version))
            elif verb == "replace":
                self.replace.append(read_replace(words))
            elif verb == "retract":
                self._retract(words)
            elif verb == "godebug":
                (word,) = _want(words, 1, "godebug KEY=VALUE")
                key, equals, value = word.partition("=")
                if not equals or any(c in word for c in "\"`',"):
                    raise ValueError("want: godebug KEY=VALUE")
                self.godebug.append((key, value))
            elif verb in self.plain:
                (word,) = _want(words, 1, f"{verb} PATH")
                self.plain[verb].append(_string(word))
        except ValueError as error:
            raise ModFileError(self.file, line.number, str(error)) from None

    def _single(self, verb: str, words: Sequence[str]) -> None:
        if verb in self.single:
            raise ValueError(f"a second {verb} line")
        (word,) = _want(words, 1, f"{verb} {'PATH' if verb == 'module' else 'VERSION'}")
        if verb == "module":
            word = _string(word)
        elif verb == "toolchain" and not _TOOLCHAIN.match(word):
            raise ValueError(f"toolchain {word!r}: want go1.23.0 or default")
        elif verb == "go" and not _GO_VERSION.fullmatch(word):
            loose = _LAX_GO_VERSION.fullmatch(word) if self.lax else None
            if loose is None:
                raise ValueError(f"go {word!r}: want a version such as 1.23.0")
            word = loose[1]
        self.single[verb] = word

    def _retract(self, words: Sequence[str]) -> None:
        if len(words) == 1 and words[0] not in "([{}]),":
            self.retract.append((_string(words[0]), _string(words[0])))
        elif len(words) == 5 and (words[0], words[2], words[4]) == ("[", ",", "]"):
            self.retract.append((_string(words[1]), _string(words[3])))
        elif not self.lax:
            raise ValueError("want: retract VERSION, or retract [LOW, HIGH]")

    def done(self) -> ModFile:
        """All of it."""
        return ModFile(
            **self.single,
            godebug=tuple(self.godebug),
            require=tuple(self.require),
            replace=tuple(self.replace),
            exclude=tuple(self.exclude),
            retract=tuple(self.retract),
            tool=tuple(self.plain["tool"]),
            ignore=tuple(self.plain["ignore"]),
            use=tuple(self.plain["use"]),
        )


def _want(words: Sequence[str], count: int, usage: str) -> Sequence[str]:
    if len(words) != count:
        raise ValueError(f"want: {usage}")
    return words


def read_replace(words: Sequence[str]) -> Replace:
    arrow = 1 if words[1:2] == ("=>",) else 2
    if words[arrow : arrow + 1] != ("=>",) or len(words) - arrow not in (2, 3):
        raise ValueError("want: replace MODULE [VERSION] => DIRECTORY, or => MODULE VERSION")
    old = Version(*map(_string, words[:arrow]))
    new = Version(*map(_string, words[arrow + 1 :]))
    if not new.version and not is_directory(new.path):
        raise ValueError(f"replacement {new.path}: want a version, or a directory that starts with / or .")
    if new.version and is_directory(new.path):
        raise ValueError(f"replacement {new.path}: a directory has no version")
    return Replace(old, new)


def _string(word: str) -> str:
    """The text of one word, out of its quotes.  Raises ValueError."""
    if word.startswith("`") and word.endswith("`") and len(word) > 1:
        return word[1:-1].replace("\r", "")
    if not word.startswith('"'):
        if any(quote in word for quote in "\"'`"):
            raise ValueError(f"{word}: a quote within an unquoted string")
        return word
    inner, place, out = word[1:-1], 0, bytearray()
    for match in _ESCAPE.finditer(inner):
        out += inner[place : match.start()].encode("utf-8", "replace") + _unescape(match)
        place = match.end()
    return (out + inner[place:].encode("utf-8", "replace")).decode("utf-8", "replace")


def _unescape(match: re.Match[str]) -> bytes:
    if match["simple"]:
        return bytes([_SIMPLE[match["simple"]]])
    if match["hex"] or (match["octal"] and match["octal"] < "400"):
        return bytes([int(match["hex"], 16) if match["hex"] else int(match["octal"], 8)])
    code = int(match["short"] or match["long"] or "110000", 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"{match[0]!a}: no such escape in a string")
    return chr(code).encode()
