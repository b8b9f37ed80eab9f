"""Results as tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from child import FAILED
from measure import Result


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as they are; all but the first column to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def duration(seconds: float) -> str:
    """In microseconds, with three digits or more."""
    micros = 1e6 * seconds
    return f"{micros:,.0f}" if micros >= 100 else f"{micros:.{1 if micros >= 10 else 2}f}"


def ratio(ratios: list[float], bar: float | None) -> list[str]:
    """Median and range of the rounds, and the ratio that is wanted."""
    wanted = "" if bar is None else f"{bar:g}"
    if not ratios:
        return ["", wanted]
    low, high = min(ratios), max(ratios)
    return [f"{statistics.median(ratios):.2f} ({low:.2f} to {high:.2f})", wanted]


def comparison(
    results: dict[str, Result],
    names: Sequence[str],
    bars: dict[str, float],
    ours: str = "cnn-core",
) -> str:
    """A line per job: µs per library, the fastest of the others in bold, ours against it.

    results : by the text of the first column. bars : the wanted ratios, by the same.
    """
    used = [name for name in names if any(name in result.rounds for result in results.values())]
    rows = []
    for title, result in results.items():
        fastest, cells = result.fastest(ours), []
        for name in used:
            text = duration(result.median(name)) if name in result.rounds else ""
            cells.append(f"**{text}**" if name == fastest else text)
        rows.append([title, *cells, *ratio(result.ratios(ours), bars.get(title))])
    return table(["µs", *used, "ratio to the fastest (rounds)", "wanted"], rows)


def notes(results: dict[str, Result]) -> str:
    """Which settings were the fastest, and who took no part although it should have."""
    lines = []
    for title, result in results.items():
        told = [f"{name}: {setting}" for name, setting in result.settings.items() if setting]
        told += [
            f"without {name}: {reason}"
            for name, reason in result.skipped.items()
            if reason.startswith(FAILED)
        ]
        if told:
            lines.append(f"{title}: {'; '.join(told)}")
    return "\n".join(f"* {line}" for line in lines)


def kernel_table(kernels: list[dict[str, Any]], peak: float) -> str:
    """Kernels of `sections.kernels`, their shares of the peak in GFLOP/s."""
    rows = [
        [
            f"{kernel['workload']} {kernel['layer']}, W {'x'.join(map(str, kernel['weights']))}",
            kernel["name"],
            duration(kernel["seconds"]),
            f"{kernel['gflops']:.1f}",
            f"{kernel['gflops'] / peak:.0%}",
            "" if kernel["bar"] is None else f"{kernel['bar']:.0%}",
        ]
        for kernel in kernels
    ]
    return table(["layer", "kernel", "µs", "GFLOP/s", "of the peak", "wanted"], rows)
