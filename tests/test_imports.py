"""Imports go downwards (the picture in gotunnel/__init__.py), those inside functions too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gotunnel

ROOT = Path(gotunnel.__file__).parent

LAYERS = (
    ("cli", "demo", "__main__"),
    ("daemon",),
    ("assemble",),
    ("doctor",),
    ("listener", "modproxy", "child", "probe", "goenv"),
    ("route",),
    ("pool",),
    ("upstream", "relay"),
    ("wire",),
    ("storage",),
    ("findings", "observe", "pattern", "tasks", "address", "errors", "openfiles"),
    ("dataclass",),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
CONFIG_MAY = {"address", "dataclass", "errors", "pattern", "upstream.spec"}
READS_CONFIG = {"cli", "demo", "daemon", "assemble", "config"}
# the edges within a floor
BESIDE = {
    ("__main__", "cli"),
    ("cli", "demo"),
    ("relay", "upstream"),
    ("findings", "address"),
    ("findings", "errors"),
    ("observe", "address"),
    ("pattern", "address"),
}


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module of ours that is imported, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "gotunnel")
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            if node.module == "gotunnel":
                yield from (f"gotunnel.{alias.name}" for alias in node.names if alias.name != "__version__")
            elif node.module and node.module.startswith("gotunnel."):
                yield node.module


def complaint(source: str, wanted: str) -> str | None:
    """What is wrong with module `source` importing `wanted` (both without "gotunnel."), in words."""
    here, there = source.split(".")[0], wanted.split(".")[0]
    if here == there:
        return None
    if there == "config":
        return None if here in READS_CONFIG else f"{source} imports {wanted}: only assemble and above may"
    if here == "config":
        return None if wanted in CONFIG_MAY else f"{source} imports {wanted}: config is plain values"
    for room, module in ((here, source), (there, wanted)):
        if room not in RANK:
            return f"{module} has no floor in the picture; give it one in tests/test_imports.py"
    if RANK[here] < RANK[there] or (here, there) in BESIDE:
        return None
    way = "upwards" if RANK[here] > RANK[there] else "sideways"
    return f"{source} imports {wanted}, which goes {way}"


def test_every_import_goes_downwards() -> None:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        source = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if source == "__init__":
            continue
        for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if words := complaint(source, name.removeprefix("gotunnel.")):
                found.append(words)
    assert not found, "\n".join(found)


def test_the_rule_itself_sees_a_wrong_edge() -> None:
    assert complaint("pool.pool", "listener.proxy") == "pool.pool imports listener.proxy, which goes upwards"
    assert "only assemble" in (complaint("listener.proxy", "config.model") or "")
    assert "plain values" in (complaint("config.load", "pool.pool") or "")
    assert "no floor" in (complaint("novelty", "errors") or "")
    assert complaint("child.retry", "pool.pool") is None
    inside = "def f():\n    from gotunnel.cli import main\nif TYPE_CHECKING:\n    import gotunnel.pool.pool\n"
    assert list(imports(ast.parse(inside))) == ["gotunnel.cli", "gotunnel.pool.pool"]
