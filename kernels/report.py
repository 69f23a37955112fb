"""Where the numbers of the report lie: rows of four, by term."""

import triton.language as tl

from ttsfast.terms.spec import FUSED

COLUMNS = tl.constexpr(len(FUSED))
"""One by term of the launch. A power of two, as ``tl.arange`` wants it; a fifth term would need a mask."""
VALUES = tl.constexpr(0 * len(FUSED))
FLOORS = tl.constexpr(1 * len(FUSED))
WEIGHTS = tl.constexpr(2 * len(FUSED))
NORMS = tl.constexpr(3 * len(FUSED))
"""What the terms' sums are multiplied by."""
APPLIED = tl.constexpr(4 * len(FUSED))
"""The gradient scale that the gradients carry."""
ROWS = 5
