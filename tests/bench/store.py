"""The case of the module store: requests and bytes a second of files that a module proxy has.

Rules:
- All serve the same files to the same client, wrk, over as many kept connections.
- Ours has fetched them from an origin before; Athens and goproxy are given them in their stores' layouts.
- A run counts only if every answer was a 200.
"""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.contestants import Local
from tests.bench.table import Aim, Case, Contender, Sample
from tests.bench.world import World
from tests.lab import gotool, proc
from tests.lab.corpus import Corpus, escape
from tests.lab.origin import Origin
from tests.lab.proc import LabError

OURS = "gotunnel serve"
MODULES, ZIP = 40, 4_000_000  # bytes
CONNECTIONS, SECONDS = 16, 3


def store_small(world: World, size: int) -> Case:
    """.mod and .info."""
    return _store(world, "store-small", (".mod", ".info"), 2000, "req/s", ".mod and .info")


def store_zip(world: World, size: int) -> Case:
    """Large zips."""
    return _store(world, "store-zip", (".zip",), ZIP, "MB/s", f"zips of {ZIP / 1e6:g} MB")


def _store(
    world: World, name: str, kinds: tuple[str, ...], filler: int, unit: str, what: str,
) -> Case:  # fmt: skip
    corpus = Corpus(world.place("corpus") / "tree", count=MODULES, levels=2, filler=filler)
    files = sorted(path for path in corpus.directory.rglob("*") if path.suffix in kinds)
    paths = [f"/{path.relative_to(corpus.directory)}" for path in files]
    notes: list[str] = []
    urls = {OURS: _ours(world, corpus, paths)}
    for rival, start in {"athens": _athens, "goproxy": _goproxy}.items():
        program = world.rivals.program(rival)
        if program is None:
            notes.append(f"not installed: {rival} ({world.rivals.absent[rival]})")
            continue
        try:
            urls[f"{rival} {world.rivals.version(rival)}"] = start(world, program, corpus)
        except LabError as error:
            notes.append(f"{rival} couldn't be started: {str(error).strip().splitlines()[0]}")
    # what a plain server that does nothing else gives: Python, a thread a connection, sendfile
    urls["the lab's origin"] = world.keep(Origin(world.place("origin"), corpus.directory)).url
    wrk, place = world.rivals.need("wrk"), world.place("wrk")

    def measure(number: int, url: str) -> Callable[[], float]:
        below = urlsplit(url).path.rstrip("/")
        script = _script(place / f"{number}.lua", [below + path for path in paths])
        load = ["-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
        argv = [wrk, *load, "-s", str(script), url]
        return lambda: _told(proc.run(argv, timeout=60).stdout, unit)

    return Case(
        name,
        f"{what} of {MODULES} modules from the store, {CONNECTIONS} connections",
        unit,
        [Contender(label, measure(number, url)) for number, (label, url) in enumerate(urls.items())],
        [Aim(OURS, 1.0, label) for label in urls if label.startswith(("athens", "goproxy"))],
        notes=notes,
    )


def _ours(world: World, corpus: Corpus, paths: list[str]) -> str:
    origin = world.keep(Origin(world.place("origin"), corpus.directory))
    # a `serve` for each corpus: the store is below its HOME
    more = f'[go]\nmirrors = ["http://{origin.address}:{origin.port}"]\n'
    serve = world.serve("--via", "direct:", more=more)
    url = serve.goproxy()
    for path in paths:
        with urllib.request.urlopen(url + path, timeout=60) as answer:
            answer.read()
    return url


def _athens(world: World, program: str, corpus: Corpus) -> str:
    """Athens' disk storage: MODULE/VERSION/{go.mod,VERSION.info,source.zip}."""
    place = world.place("athens")
    for module in corpus.modules:
        versions = corpus.directory / escape(module.path) / "@v"
        for info in versions.glob("*.info"):
            version = info.stem
            there = place / "storage" / module.path / version
            there.mkdir(parents=True)
            shutil.copy(info, there / f"{version}.info")
            shutil.copy(versions / f"{version}.mod", there / "go.mod")
            shutil.copy(versions / f"{version}.zip", there / "source.zip")

    def argv(directory: Path, port: int) -> list[str]:
        env = {"ATHENS_PORT": f"127.0.0.1:{port}", "ATHENS_STORAGE_TYPE": "disk", "ATHENS_LOG_LEVEL": "error",
               "ATHENS_DISK_STORAGE_ROOT": str(place / "storage"), "ATHENS_SUM_DBS": "",
               "ATHENS_GO_BINARY_PATH": gotool.find_go() or "go"}  # fmt: skip
        return ["env", *(f"{key}={value}" for key, value in env.items()), program]

    return f"http://127.0.0.1:{world.keep(Local(place, argv)).port}"


def _goproxy(world: World, program: str, corpus: Corpus) -> str:
    """goproxy's directory cache: the paths of the protocol."""
    place = world.place("goproxy")
    shutil.copytree(corpus.directory, place / "cache")

    def argv(directory: Path, port: int) -> list[str]:
        return [program, "server", "--address", f"127.0.0.1:{port}", "--cacher-dir", str(place / "cache")]

    return f"http://127.0.0.1:{world.keep(Local(place, argv)).port}"


def _script(script: Path, paths: list[str]) -> Path:
    """wrk asks for each path in turn, escaped as go does it."""
    listed = ",".join(f'"{path.replace("!", "%21")}"' for path in paths)
    script.write_text(
        f"local paths = {{{listed}}}\nlocal at = 0\n"
        "request = function()\n  at = at % #paths + 1\n  return wrk.format('GET', paths[at])\nend\n"
    )
    return script


_SIZES = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_TIMES = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def _told(text: str, unit: str) -> Sample:
    """What wrk prints; raises LabError where an answer was no 200 or a socket failed."""
    if trouble := re.search(r"Non-2xx.*|Socket errors.*", text):
        raise LabError(f"wrk: {trouble[0]}")
    rate = float(re.search(r"Requests/sec:\s*([\d.]+)", text)[1])  # type: ignore[index]
    size = re.search(r"Transfer/sec:\s*([\d.]+)([KMG]?B)", text)
    p99 = re.search(r"99%\s*([\d.]+)(us|ms|s)\b", text)
    assert size is not None
    assert p99 is not None
    speed = float(size[1]) * _SIZES[size[2]] / 1e6
    latency = float(p99[1]) * _TIMES[p99[2]]
    if unit == "req/s":
        return Sample(rate, {"MB/s": speed, "p99 ms": latency})
    return Sample(speed, {"req/s": rate, "p99 ms": latency})


STORE_CASES: dict[str, Callable[[World, int], Case]] = {
    "store-small": store_small,
    "store-zip": store_zip,
}
