"""Triton kernels and their launchers (imported as ``ttsfast.kernels``)."""
