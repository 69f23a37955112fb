"""The figures of the loss benchmark in columns."""

from __future__ import annotations

from typing import Any

from ttsfast.benchmarks import machine


def table(result: dict[str, Any]) -> str:
    """The figures in columns, speed-ups against eager and against compiled torch beside them."""
    lines = []
    for entry in result["cases"]:
        case, rows = entry["case"], entry["variants"]
        lines.append(
            f"{case['name']}: B={case['batch']} T<={case['frames']} C={case['bins']} Z={case['latents']} "
            f"{case['dtype']}, {entry['valid']:.0%} valid, {case['sets']} set(s), "
            f"{entry['bytes'] / 1e6:.1f} MB to move, copy {entry['copy_gb_per_s']:.1f} GB/s"
        )
        lines.append(
            f"  {'variant':<16}{'ms':>9}{'best':>9}{'first':>9}{'forward':>9}{'GB/s':>7}{'of copy':>9}"
            f"{'x eager':>9}{'x compile':>11}{'peak MB':>9}{'allocs':>8}{'launches':>10}{'error':>9}"
        )
        for name, row in rows.items():
            if not row["correct"]:
                lines.append(f"  {name:<16}wrong: error {row['error']:.2g}, no figures")
                continue
            ratios = [
                f"{rows[other]['ms'] / row['ms']:.2f}" if rows.get(other, {}).get("correct") else "-"
                for other in ("eager", "compile")
            ]
            peak = f"{row['peak_bytes'] / 1e6:.1f}"
            lines.append(
                f"  {name:<16}{_times(row)}{row['gb_per_s']:>7.1f}{row['of_copy']:>9.0%}{ratios[0]:>9}"
                f"{ratios[1]:>11}{peak:>9}{row['allocations']:>8}{row['launches']:>10}{row['error']:>9.0e}"
            )
        lines.append(f"  {'(copies alone)':<16}{_times(entry['floor'])}")
    host = ", ".join(f"{name} {value:.0f}" for name, value in result["host_us"].items())
    lines.append(f"host overhead of both passes, microseconds: {host}")
    lines.append(machine.summary(result["machine"]))
    return "\n".join(lines)


def _times(row: dict[str, float]) -> str:
    return "".join(f"{row[key]:>9.3f}" for key in ("ms", "best_ms", "first_ms", "forward_ms"))
