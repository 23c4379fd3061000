"""Logs: one line for each thing, for a person, for journald, or as Elastic Common Schema.

Rules:
- `text` is `gotunnel: WORDS` on standard error.  Where that leads to journald an entry with priority and
  fields goes by its own protocol, or, if that fails, a line that starts with `<PRIORITY>`.
- `json` is ECS, a line each: event.action is the event's name, error.code the finding, labels.run the run.
- Secrets are masked once, by the handler, in all that leaves it: words, arguments, fields, tracebacks.  It
  knows them by their shape (`address.redact`) and by name (`register_secret`).
- A log that can't be written disturbs nobody.

Source: https://www.elastic.co/docs/reference/ecs (event, error, labels), https://github.com/elastic/ecs-logging
(spec: order, log.level), sd-daemon(3) for the prefixes.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote

from gotunnel.address import one_line, redact
from gotunnel.observe.events import RUN
from gotunnel.observe.journal import Journal, is_journal

Format = Literal["text", "json"]
LINE_LIMIT = 2000  # characters of a line
SHORTEST = 4  # characters of a secret that is looked for: fewer would mask half of each line
_WORD = 8192  # characters of a word with a URL in it
_LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "debug": logging.DEBUG}
# what they tell at a level is of interest one level below
_CHATTY = ("asyncssh", "asyncio", "aiohttp", "aiohttp.access", "aiohttp.server")


# --- secrets -----------------------------------------------------------------------------------------


class _Secrets:
    """The texts that are masked wherever they appear."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Counter[str] = Counter()
        self._pattern: re.Pattern[str] | None = None

    def change(self, forms: set[str], by: int) -> None:
        with self._lock:
            for form in forms:
                self._known[form] += by
                if self._known[form] <= 0:
                    del self._known[form]
            longest_first = sorted(self._known, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def mask(self, text: str) -> str:
        pattern = self._pattern
        return pattern.sub("***", text) if pattern is not None else text


_secrets = _Secrets()


def register_secret(text: str) -> Callable[[], None]:
    """Mask `text` from now on, as it is, percent-encoded, and in a `repr` or JSON; each line of several.

    What is given back forgets it again.  Fewer than SHORTEST characters are not looked for.
    """
    forms = set()
    for line in {text.strip(), *text.split("\n")}:
        for form in (line.strip(), quote(line.strip(), safe=""), repr(line.strip())[1:-1]):
            forms |= {form, json.dumps(form)[1:-1]}
    # a line such as "-----END…" of a key is none of the secret
    forms = {form for form in forms if len(form) >= SHORTEST and not form.startswith("-----")}
    _secrets.change(forms, 1)
    done = threading.Event()

    def forget() -> None:
        if not done.is_set():
            done.set()
            _secrets.change(forms, -1)

    return forget


def mask(text: str) -> str:
    """`text` with every secret in it masked: those in URLs, and those that were registered."""
    text = _secrets.mask(text)
    if "://" not in text:
        return text
    # word by word: `redact` takes quadratic time for a long one, which a server may have sent
    return "".join(
        redact(word if len(word) <= _WORD else word[:_WORD] + "…") if "://" in word else word
        for word in re.split(r"(\s+)", text)
    )


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {mask(str(key)): _masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(item) for item in value]
    return value if value is None or isinstance(value, int | float) else mask(str(value))


# --- the handler -------------------------------------------------------------------------------------


def set_up(
    format: Format,
    level: str,
    environ: Mapping[str, str],
    *,
    run: str = "",
    write: Callable[[str], None] | None = None,
) -> None:
    """Have all of Python's logging come out here, in place of what was set up before.

    `level` is a word of --log-level; `run` labels what is said on nobody else's behalf; `write` takes whole
    lines in place of standard error.  Raises ValueError for an unknown level.
    """
    root = logging.getLogger()
    handler = LogHandler(format, environ, run=run, write=write)
    before = [old for old in root.handlers if isinstance(old, LogHandler)]
    root.addHandler(handler)
    for old in before:
        root.removeHandler(old)
        old.close()
    set_level(level)


def set_level(level: str) -> None:
    """Say more or less from now on.  Raises ValueError."""
    if level not in _LEVELS:
        raise ValueError(f"unknown level {level!r}; want one of {', '.join(_LEVELS)}")
    number = _LEVELS[level]
    logging.getLogger().setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.INFO if number == logging.DEBUG else max(number, 30))


class LogHandler(logging.Handler):
    """Writes every record in one of the three ways; see the rules of this file."""

    def __init__(
        self,
        format: Format,
        environ: Mapping[str, str],
        *,
        run: str = "",
        write: Callable[[str], None] | None = None,
        journal: Journal | None = None,
    ) -> None:
        super().__init__()
        self._run, self._write = run, write or _to_stderr
        self._prefixed = write is None and is_journal(environ)
        self._journal = journal
        self._as_json = _ecs() if format == "json" else None
        if journal is None and self._prefixed and self._as_json is None:
            self._journal = Journal()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            run = RUN.get() or self._run
            before = f"<{_priority(record.levelno)}>" if self._prefixed else ""
            if self._as_json is not None:
                self._write(f"{before}{self._as_json(record, run)}\n")
                return
            line, trace = _words(record)
            if self._journal is not None and self._journal.send(_fields(record, run, line, trace)):
                return
            lines = [line, *(f"  {one_line(part, LINE_LIMIT)}" for part in trace.splitlines())]
            self._write("".join(f"{before}gotunnel: {part}\n" for part in lines))
        except Exception:
            # Python's own way prints the arguments, that is, secrets, and disturbs CMD's output
            self._say("a line of the log was lost: it can't be written or formatted")

    def _say(self, text: str) -> None:
        try:
            self._write(f"gotunnel: {text}\n")
        except Exception:
            return

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
        super().close()


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:  # it was closed before we came
        sys.stderr.write(text.encode("utf-8", "backslashreplace").decode())
        sys.stderr.flush()


def _priority(level: int) -> int:
    """The priority of syslog(3)."""
    for least, priority in ((50, 2), (40, 3), (30, 4), (20, 6)):
        if level >= least:
            return priority
    return 7


def _words(record: logging.LogRecord) -> tuple[str, str]:
    """One line, and the traceback, if there is one, of several; both masked before they are cut."""
    said = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        said += f": {type(error).__name__}: {error}"
    own = record.name.startswith("gotunnel")
    if record.levelno <= logging.DEBUG or not own:
        said = f"{record.name.removeprefix('gotunnel.')}: {said}"
    trace = ""
    if error is not None:
        trace = "".join(traceback.format_exception(error))
    elif record.stack_info:
        trace = str(record.stack_info)
    return one_line(mask(said), LINE_LIMIT), mask(trace)


def _fields(record: logging.LogRecord, run: str, line: str, trace: str) -> dict[str, str]:
    """What journald keeps beside the words; see journalctl -o verbose."""
    fields = {
        "MESSAGE": line,
        "PRIORITY": str(_priority(record.levelno)),
        "SYSLOG_IDENTIFIER": "gotunnel",
        "SYSLOG_PID": str(os.getpid()),
        "LOGGER": record.name,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }
    if run:
        fields["GOTUNNEL_RUN"] = mask(run)
    for name, value in _masked(getattr(record, "facts", {})).items():
        fields[f"GOTUNNEL_{name.upper()}"] = str(value)
    if trace:
        fields["TRACEBACK"] = trace
    return fields


# --- Elastic Common Schema ---------------------------------------------------------------------------


def _ecs() -> Callable[[logging.LogRecord, str], str]:
    """A function that makes the line of a record."""
    import ecs_logging

    from gotunnel import __version__

    service = {"service.name": "gotunnel", "service.version": __version__, "service.type": "gotunnel"}
    formatter = ecs_logging.StdlibFormatter(
        extra={**service, "event.dataset": "gotunnel.log"},
        exclude_fields=("log.original", "process.thread", "process.name", "facts"),
    )

    def line(record: logging.LogRecord, run: str) -> str:
        # the formatter writes into the record, which other handlers have too
        content = _masked(formatter.format_to_ecs(copy.copy(record)))
        facts = _masked(getattr(record, "facts", {}))
        _put_facts(content, facts)
        if run:
            content.setdefault("labels", {})["run"] = mask(run)
        # these first, and the level's name with its dot, as the ecs-logging spec wants them
        head = {"@timestamp": content.pop("@timestamp"), "log.level": content["log"].pop("level")}
        first = {**head, "message": content.pop("message", "")}
        return json.dumps({**first, **content}, ensure_ascii=True, default=str)

    return line


def _put_facts(content: dict[str, Any], facts: Mapping[str, Any]) -> None:
    """An event's facts where the schema has a place for them, the rest as labels (which are flat)."""
    rest = dict(facts)
    event = content.setdefault("event", {})
    if action := rest.pop("event", None):
        event["action"] = action
        event["kind"] = "alert" if action == "alert" else "event"
        event["category"] = ["network"]
    if (finding := rest.pop("finding", None)) is not None:
        error = content.setdefault("error", {})
        error["code"] = finding
        if (detail := rest.pop("detail", None)) is not None:
            error["message"] = detail
    if (ms := rest.pop("ms", None)) is not None:
        event["duration"] = int(ms * 1e6)  # nanoseconds
    if (outcome := rest.pop("ok", None)) is not None:
        event["outcome"] = "success" if outcome else "failure"
    if (target := rest.pop("target", None)) is not None:
        content.setdefault("destination", {})["address"] = target
    if rest:
        content.setdefault("labels", {}).update(
            {name: value if isinstance(value, int | float) else str(value) for name, value in rest.items()}
        )
