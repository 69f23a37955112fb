"""How far a decoder read its text, by the symbols that its attention passed."""

from __future__ import annotations

import numpy as np

PASSED_AT_ONCE = 3
"""Symbols that one decoder step may pass over between two it attends to: a step lasts some 40 ms, and
stress marks, silent letters and spaces last less. A longer run without attention is a skip."""

MISSED_AT_EDGE = 1
"""Symbols at either end of the text that need no attention of their own (a full stop, a breath)."""


def missed(visited: np.ndarray, symbols: int) -> int:
    """How many of a text's symbols were not read, given those that were attended to.

    A symbol between two visited ones counts as read too, when the run it belongs to is no longer than
    :data:`PASSED_AT_ONCE`; at the text's two ends, :data:`MISSED_AT_EDGE`.

    Args:
        visited: positions in the text, ascending, each once.
        symbols: of the text.
    """
    if visited.size == 0:
        return symbols
    unread = np.diff(visited) - 1
    count = int(unread[unread > PASSED_AT_ONCE].sum())
    for edge in (int(visited[0]), symbols - 1 - int(visited[-1])):
        count += edge if edge > MISSED_AT_EDGE else 0
    return count


def share_read(attention: np.ndarray) -> float:
    """The share of its symbols that attention passed, 1.0 for a text that was read whole.

    It says where attention was, not how sharp: :func:`ttsfast.evaluation.metrics.coverage` asks for both.

    Args:
        attention: (S, N) decoder steps by text symbols, neither 0.
    """
    symbols = attention.shape[1]
    return 1.0 - missed(np.unique(attention.argmax(axis=1)), symbols) / symbols


def end_of_reading(attention: np.ndarray) -> int | None:
    """The first decoder step that attends most to the end of the text, from 0; None where none does.

    Args:
        attention: (S, N) decoder steps by text symbols, neither 0.
    """
    at_end = attention.argmax(axis=1) >= attention.shape[1] - 1 - MISSED_AT_EDGE
    return int(at_end.argmax()) if at_end.any() else None
