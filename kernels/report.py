"""Where the numbers of the report lie: rows of four, by term."""

import triton.language as tl

VALUES = tl.constexpr(0)
FLOORS = tl.constexpr(4)
WEIGHTS = tl.constexpr(8)
NORMS = tl.constexpr(12)
"""What the terms' sums are multiplied by."""
APPLIED = tl.constexpr(16)
"""The gradient scale that the gradients carry."""
ROWS = 5
