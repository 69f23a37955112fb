"""Where the numbers of the report lie: rows of four, by term."""

import triton.language as tl

from ttsfast.terms.spec import TERMS

COLUMNS = tl.constexpr(len(TERMS))
"""One by term. A power of two, as ``tl.arange`` wants it; a fifth term would need a mask."""
VALUES = tl.constexpr(0 * len(TERMS))
FLOORS = tl.constexpr(1 * len(TERMS))
WEIGHTS = tl.constexpr(2 * len(TERMS))
NORMS = tl.constexpr(3 * len(TERMS))
"""What the terms' sums are multiplied by."""
APPLIED = tl.constexpr(4 * len(TERMS))
"""The gradient scale that the gradients carry."""
ROWS = 5
