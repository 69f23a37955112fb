"""Where a CPU trains in bf16: by what its processor says, on a made-up tree of files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ttsfast import devices
from ttsfast.config import load_config
from ttsfast.devices import choose_precision, multiplies_in_bf16, this_machine


def processor(root: Path, flags: str) -> Path:
    """Two cores with these flags."""
    core = f"processor\t: 0\nmodel name\t: One with amx_bf16 in its name\nflags\t\t: fpu sse4_2 {flags}\n\n"
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(2 * core)
    return root


@pytest.mark.parametrize(
    ("flags", "most", "expected"),
    [
        ("avx512_bf16 amx_bf16 amx_tile", None, True),
        ("avx512_bf16 amx_bf16 amx_tile", "AVX512_CORE_AMX", True),
        ("avx512_bf16 amx_bf16 amx_tile", "all", True),
        ("avx512_bf16 amx_bf16 amx_tile", "AVX2", False),
        ("avx512_bf16 amx_bf16 amx_tile", "", True),
        ("avx512_bf16 amx_bf16 amx_tile", "DNNL_MAX_CPU_ISA=AVX2", False),
        ("avx512_bf16 amx_tile", None, False),
        ("avx2", None, False),
    ],
)
def test_tiles_are_there_and_allowed(
    flags: str, most: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if most is not None:
        name, _, value = most.rpartition("=")
        monkeypatch.setenv(name or "ONEDNN_MAX_CPU_ISA", value)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert multiplies_in_bf16(processor(tmp_path, flags)) == expected


def test_without_onednn_or_proc_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert not multiplies_in_bf16(tmp_path)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not multiplies_in_bf16(processor(tmp_path, "amx_bf16"))


@pytest.mark.parametrize("there", [True, False])
def test_what_auto_stands_for_on_a_cpu(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "multiplies_in_bf16", lambda: there)
    assert this_machine("cpu").half == ("bf16" if there else "")

    def chosen(*keys: str) -> devices.Precision:
        return choose_precision(load_config(overrides=["training.device=cpu", *keys]))

    assert chosen().dtype is (torch.bfloat16 if there else torch.float32)
    assert chosen("data.mixed_precision=false").dtype is torch.float32
    asked = chosen("training.amp_dtype=bf16")
    assert asked.dtype is torch.bfloat16
    assert ("slower than float32" in asked.reason) != there
    assert "slower than float32" in chosen("training.amp_dtype=fp16").reason
