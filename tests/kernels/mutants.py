"""Plants one mistake after another in a copy of the kernels, and reports which of them the tests do not kill.

``python tests/kernels/mutants.py [FILTER]`` takes some ten minutes on one core; the exit code is the number
of survivors. Each mutant names the tests that must kill it, and those are all that it is put through.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Mutant(NamedTuple):
    """A mistake, and what must notice it."""

    name: str
    file: str
    good: str
    """Stands once in the file."""
    bad: str
    tests: str
    """A test file and, after a space, an expression of pytest's ``-k``."""
    interpreted: bool = True


FORWARD, BACKWARD = "test_kernel_forward.py", "test_kernel_backward.py"
HOSTILE, STATE = "test_kernel_hostile.py", "test_kernel_state.py"
SEARCH, SUM = "../alignment/test_search.py", "../alignment/test_forward_sum.py"
LAUNCHES, BUDGETS = "test_kernel_launches.py", "test_kernel_budgets.py"
MUTANTS = (
    Mutant(
        "a tie broken the other way",
        "kernels/search.py",
        "moved = (shifted > best) | (lane == t)",
        "moved = (shifted >= best) | (lane == t)",
        f"{SEARCH} ties",
    ),
    Mutant(
        "the only way compared",
        "kernels/search.py",
        "moved = (shifted > best) | (lane == t)",
        "moved = shifted > best",
        f"{SEARCH} whatever",
    ),
    Mutant(
        "the last word of bits not kept",
        "kernels/search.py",
        "if (t % FRAMES == FRAMES - 1) | (t == long - 1):",
        "if t % FRAMES == FRAMES - 1:",
        f"{SEARCH} reference",
    ),
    Mutant(
        "durations of what was not aligned left unwritten",
        "kernels/search.py",
        "tl.store(out + lane, tl.zeros([WIDTH], tl.int64), mask=lane < symbols)",
        "tl.store(out + lane, tl.zeros([WIDTH], tl.int64), mask=lane < wide)",
        f"{SEARCH} reference",
    ),
    Mutant(
        "a path that may leave out the blank",
        "kernels/forward_sum.py",
        "passed = log_add(label, passed + waiting)",
        "passed = log_add(label, passed - norm - shift)",
        f"{SUM} ctc",
    ),
    Mutant(
        "two negative infinities subtracted",
        "kernels/lanes.py",
        'tl.where(high == float("-inf"), high, high + log1p_of_unit(exp(-tl.abs(a - b))))',
        "high + log1p_of_unit(exp(-tl.abs(a - b)))",
        f"{SUM} ctc",
    ),
    Mutant(
        "padded frames of the gradient left unwritten",
        "kernels/forward_sum.py",
        "for _ in range(rows, frames):",
        "for _ in range(rows, rows):",
        f"{SUM} ctc",
    ),
    Mutant(
        "padding used without a select",
        "kernels/mel.py",
        "tl.where(at < valid, load(mel.predictions[k] + base + at, reached, OPT.ACC) - y, 0.0)",
        "load(mel.predictions[k] + base + at, reached, OPT.ACC) - y",
        f"{FORWARD} test_mel",
    ),
    Mutant(
        "Huber clamped on one side",
        "kernels/mel.py",
        "tl.where(d > delta, delta, tl.where(d < -delta, -delta, d))",
        "tl.where(d > delta, delta, d)",
        f"{FORWARD} test_mel",
    ),
    Mutant(
        "a gradient without its scale",
        "kernels/mel.py",
        "tl.where(at < valid, slope * scale, 0.0), stored)",
        "tl.where(at < valid, slope, 0.0), stored)",
        f"{FORWARD} test_mel",
    ),
    Mutant(
        "a store one element too far",
        "kernels/mel.py",
        "rounded_up(frames.to(tl.int64) * OPT.BINS, ALIGN)",
        "rounded_up(frames.to(tl.int64) * OPT.BINS, ALIGN) + 1",
        f"{HOSTILE} nothing_outside",
    ),
    Mutant(
        "an offset of 32 bits",
        "kernels/memory.py",
        "t.to(tl.int64) * strides[1][k]",
        "t * strides[1][k]",
        f"{HOSTILE} 31_bits",
    ),
    Mutant(
        "a corpus by offsets of 32 bits",
        "kernels/gather.py",
        "mel + start * BINS + at",
        "mel + start.to(tl.int32) * BINS + at",
        "test_kernel_gather.py 31_bits",
    ),
    Mutant(
        "a batch by offsets of 32 bits",
        "kernels/gather.py",
        "out_stop + row.to(tl.int64) * frames + t",
        "out_stop + row * frames + t",
        "test_kernel_gather.py 31_bits",
    ),
    Mutant(
        "the stop target one step late",
        "kernels/stop.py",
        "(t >= length - 1)",
        "(t >= length)",
        f"{FORWARD} test_stop",
    ),
    Mutant(
        "padded gradients left unwritten",
        "kernels/stop.py",
        "store(at, slope, t < rounded_up(size, ALIGN))",
        "store(at, slope, inside)",
        f"{FORWARD} test_stop",
    ),
    Mutant(
        "a tail after a truncated clip",
        "kernels/counts.py",
        "tl.where((length == 0) | truncated, 0, room)",
        "tl.where(length == 0, 0, room)",
        f"{FORWARD} test_stop",
    ),
    Mutant(
        "lengths not clamped from above",
        "kernels/counts.py",
        "tl.minimum(tl.maximum(length, 0), limit)",
        "tl.maximum(length, 0)",
        f"{HOSTILE} clamped",
    ),
    Mutant(
        "an utterance's sum left undivided",
        "kernels/dispatch.py",
        "share = 1.0 / tl.maximum(count, 1).to(OPT.ACC)",
        "share = tl.full([], 1.0, OPT.ACC)",
        f"{FORWARD} test_mel",
    ),
    Mutant(
        "heads summed, not averaged",
        "kernels/weighting.py",
        "1.0 / by_attention / HEADS",
        "1.0 / by_attention",
        f"{FORWARD} test_attention",
    ),
    Mutant(
        "a penalty twice as steep",
        "kernels/attention.py",
        "one_minus_exp(0.5 * away * away)",
        "one_minus_exp(away * away)",
        f"{FORWARD} test_attention",
    ),
    Mutant(
        "the prior's gradient with the wrong sign",
        "kernels/kl.py",
        "(slope, half, -slope,",
        "(slope, half, slope,",
        f"{FORWARD} test_kl",
    ),
    Mutant(
        "free bits that let gradients through",
        "kernels/kl.py",
        "tl.where(nats <= free_bits, 0.0, scale)",
        "tl.where(nats <= free_bits, scale, scale)",
        f"{FORWARD} test_kl",
    ),
    Mutant(
        "random words in another order",
        "kernels/noise.py",
        "tl.philox(key, counter, frame,",
        "tl.philox(key, frame, counter,",
        "test_kernel_noise.py words",
    ),
    Mutant(
        "an inactive term in the total",
        "kernels/finish.py",
        "tl.sum(tl.where(active, values * used, 0.0))",
        "tl.sum(values * used)",
        f"{FORWARD} weight_zero",
    ),
    Mutant(
        "another decay",
        "kernels/adaptive.py",
        "_FAST_DECAY = tl.constexpr(constants.FAST_DECAY)",
        "_FAST_DECAY = tl.constexpr(0.8)",
        f"{STATE} follows",
    ),
    Mutant(
        "averages moved by a step that is not finite",
        "kernels/adaptive.py",
        "changed = active & (bad == 0)",
        "changed = active",
        f"{STATE} follows",
    ),
    Mutant(
        "lengths at their bound counted as outside",
        "kernels/finish.py",
        "(length > limit)",
        "(length >= limit)",
        f"{FORWARD} test_mel",
    ),
    Mutant(
        "a counter left where it was",
        "kernels/fused.py",
        "            tl.store(results.counter, 0)\n",
        "",
        f"{BACKWARD} counter",
    ),
    Mutant(
        "gradients handed over whatever arrived",
        "kernels/fused.py",
        "(not OPT.IN_PLACE) or (arrived != tl.load(results.report + APPLIED))",
        "not OPT.IN_PLACE",
        f"{BACKWARD} once",
    ),
    Mutant(
        "gradients computed again without their divisor",
        "kernels/fused.py",
        "* arrived * tl.load(results.report + NORMS + term)",
        "* arrived",
        f"{BACKWARD} once",
    ),
    Mutant(
        "gradients computed again with the noise of another step",
        "kernels/fused.py",
        "step = tl.load(results.integers + 2)",
        "step = tl.load(results.integers + 2) + 1",
        f"{FORWARD} generator",
    ),
    Mutant(
        "a kept gradient given away",
        "ttsfast/losses/triton.py",
        "if graph_is_kept():",
        "if False:",
        f"{BACKWARD} kept",
    ),
    Mutant(
        "inputs changed in between not noticed",
        "ttsfast/losses/triton.py",
        "if moved or [*map(_version, counting)] != versions:",
        "if moved:",
        f"{BACKWARD} changed_in_place",
    ),
    Mutant(
        "memory exchanged in between not noticed",
        "ttsfast/losses/triton.py",
        "if moved or [*map(_version, counting)] != versions:",
        "if [*map(_version, counting)] != versions:",
        f"{BACKWARD} exchanged",
    ),
    Mutant(
        "the alignment of addresses forgotten",
        "kernels/launch.py",
        "reduce(or_, addresses) % VECTOR and tuple([address % VECTOR for address in addresses]),",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "words that another stream is still filling",
        "kernels/counter.py",
        "torch.cuda.current_stream(device).wait_event(bank.zeroed)",
        "pass",
        f"{LAUNCHES} counters",
        False,
    ),
    Mutant(
        "words made inside a compiled graph",
        "kernels/counter.py",
        "if bank is None and not capturing and not compiled:",
        "if bank is None and not capturing:",
        f"{LAUNCHES} compiled_graphs",
        False,
    ),
    Mutant(
        "strides forgotten",
        "kernels/launch.py",
        "*map(_strides, read),",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "shapes forgotten",
        "kernels/launch.py",
        "*map(_shape, read),",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "dtypes forgotten",
        "kernels/launch.py",
        "*map(_dtype, tensors),",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "which inputs there are forgotten",
        "kernels/launch.py",
        "*[tensor is None for tensor in given],",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "which gradients are wanted forgotten",
        "kernels/launch.py",
        "*[gradient is None for gradient in gradients],",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "numbers and pointers to them confused",
        "kernels/launch.py",
        "*[(v.dtype, v.data_ptr() % VECTOR) if isinstance(v, Tensor) else None for v in scalars],",
        "",
        f"{LAUNCHES} another_layout",
        False,
    ),
    Mutant(
        "the alignment of what arrives forgotten",
        "kernels/launch.py",
        "kind = in_place, arrived % VECTOR == 0",
        "kind = in_place, True",
        f"{LAUNCHES} arrives",
        False,
    ),
    Mutant(
        "partial sums over the report",
        "kernels/launch.py",
        "at, at + 8 * INTEGERS, word",
        "at, at, word",
        "test_kernel_driver.py forward",
        False,
    ),
    Mutant(
        "a captured launch that shares a stream's counter",
        "kernels/counter.py",
        "if bank is not None and not capturing and stream in bank.by_stream:",
        "if bank is not None and stream in bank.by_stream:",
        f"{LAUNCHES} counters",
        False,
    ),
    Mutant(
        "partial sums added atomically",
        "kernels/fused.py",
        "tl.store(results.partials + pid, part)",
        "tl.atomic_add(results.partials + pid, part)",
        f"{BUDGETS} mel-f32-sm_90",
        False,
    ),
    Mutant(
        "accesses that the compiler cannot widen",
        "kernels/mel.py",
        "reached = at < rounded_up(valid, ALIGN)",
        "reached = at < valid",
        f"{BUDGETS} mel-bf16-100-sm_90",
        False,
    ),
)


def copied(folder: Path) -> None:
    """What the tests need, with the kernels where an installation puts them."""
    for name in ("kernels", "ttsfast", "tests/kernels", "tests/alignment", "tests/support"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "ttsfast" / "kernels").symlink_to(folder / "kernels")
    shutil.copy(ROOT / "pyproject.toml", folder)


def is_killed(mutant: Mutant) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        source = folder / mutant.file
        text = source.read_text()
        if text.count(mutant.good) != 1:
            raise SystemExit(f"{mutant.name}: stands {text.count(mutant.good)} times in {mutant.file}")
        source.write_text(text.replace(mutant.good, mutant.bad))
        file, _, chosen = mutant.tests.partition(" ")
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-xq",
                "-p",
                "no:cacheprovider",
                f"tests/kernels/{file}",
                "-k",
                chosen,
            ],
            cwd=folder,
            env={**os.environ, "TRITON_INTERPRET": str(int(mutant.interpreted)), "PYTHONPATH": name},
            capture_output=True,
            timeout=600,
        )
    # 5: no test was chosen. A crash kills too.
    if done.returncode == 5:
        raise SystemExit(f"{mutant.name}: {mutant.tests} chooses no test")
    return done.returncode != 0


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    survivors = 0
    for mutant in MUTANTS:
        if wanted in mutant.name or wanted in mutant.tests:
            began = time.monotonic()
            killed = is_killed(mutant)
            survivors += not killed
            print(
                f"{'killed' if killed else 'SURVIVED'}: {mutant.name}, {time.monotonic() - began:.0f} s",
                flush=True,
            )
    sys.exit(survivors)


if __name__ == "__main__":
    main()
