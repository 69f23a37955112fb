"""How tiles are read and written.

Offsets between utterances, frames and symbols are 64 bits wide; indices along one axis are 32.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit
def load(pointers, mask, ACC: tl.constexpr):
    # Cast at once: arithmetic in half precision is neither wanted nor right under the interpreter.
    return tl.load(pointers, mask=mask, other=0.0).to(ACC)


@triton.jit
def store(pointers, values, mask):
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def rounded_up(length, ALIGN: tl.constexpr):
    """The next multiple of ALIGN, in a form that tells the compiler so.

    A mask that ends on a multiple of a vector's width keeps the access one vector. At most ALIGN - 1
    padded elements are read beyond the end, inside the tensor, and dropped by a select.
    """
    return (length + (ALIGN - 1)) // ALIGN * ALIGN


@triton.jit
def pointers_at(pointer, utterance, t, c, strides, k: tl.constexpr):
    """Pointers to (t, c) of an utterance of the tensor whose strides are the k-th of each axis."""
    row = t.to(tl.int64) * strides[1][k]
    return pointer + utterance * strides[0][k] + row + c.to(tl.int64) * strides[2][k]
