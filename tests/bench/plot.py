"""A case as a picture: bars for one, lines over the round-trip time for a series (matplotlib)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.table import Result
from tests.lab.proc import LabError


def able() -> tuple[bool, str]:
    """Whether pictures can be drawn; else what to do."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False, "--plot needs matplotlib: pip install matplotlib"
    return True, ""


def draw(file: Path, results: Sequence[tuple[float | None, Result]]) -> None:
    """Draw results with their round-trip times in ms (None: bars).  Raises LabError if that fails."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    series = [(rtt, result) for rtt, result in results if rtt is not None]
    case = results[0][1].case
    if series:
        rtts = [rtt for rtt, _ in series]
        bound = [result.case.bound for _, result in series]
        for number, contender in enumerate(case.contenders):
            values = [result.median(contender.name) for _, result in series]
            axes.plot(rtts, values, "o-", label=contender.name, linewidth=2.5 if number == 0 else 1.2)
        if all(bound):
            axes.plot(rtts, bound, ":", color="grey", label="handshakes + bytes / rate")
        axes.set_yscale("log")
        axes.set_xlabel("round-trip time, ms")
        axes.set_ylabel(f"{case.name}, {case.unit}")
        axes.set_xticks(rtts)
        axes.grid(which="both", alpha=0.25)
        axes.legend(fontsize="small")
        axes.set_title(case.title.rpartition(", RTT")[0] or case.title, fontsize="medium")
    else:
        names = [contender.name for contender in case.contenders]
        values = [results[0][1].median(name) for name in names]
        bars = axes.barh(names[::-1], values[::-1], color=["C7"] * (len(names) - 1) + ["C0"])
        axes.bar_label(bars, fmt="%.3g", padding=3)
        axes.set_xlabel(case.unit)
        axes.set_title(case.title, fontsize="medium", wrap=True)
    try:
        figure.savefig(file, dpi=150)
    except (OSError, ValueError) as error:
        raise LabError(f"--plot {file}: {error}") from None
    finally:
        plt.close(figure)
