"""The backward kernel: makes the gradients that the forward pass wrote fit the gradient that arrived."""

# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

_SIZES = [f"{name}{i}" for name in ("size", "end") for i in range(16)]


@triton.jit(do_not_specialize=["tiles", *_SIZES])
def rescale(
    gradients,  # tuple of 16 pointers to dense tensors, None beyond the last
    outputs,  # the same; the gradients themselves with IN_PLACE
    incoming,  # () what arrived at the total
    applied,  # () what the gradients are already multiplied by
    tiles,
    size0,
    size1,
    size2,
    size3,
    size4,
    size5,
    size6,
    size7,
    size8,
    size9,
    size10,
    size11,
    size12,
    size13,
    size14,
    size15,
    end0,
    end1,
    end2,
    end3,
    end4,
    end5,
    end6,
    end7,
    end8,
    end9,
    end10,
    end11,
    end12,
    end13,
    end14,
    end15,
    IN_PLACE: tl.constexpr,
    TILE: tl.constexpr,
):
    arrived = tl.load(incoming)
    expected = tl.load(applied)
    # In the common case every program ends here.
    if (not IN_PLACE) or (arrived != expected):
        ratio = tl.div_rn(arrived, expected) if arrived.dtype == tl.float32 else arrived / expected
        pid = tl.program_id(0)
        sizes = (
            size0,
            size1,
            size2,
            size3,
            size4,
            size5,
            size6,
            size7,
            size8,
            size9,
            size10,
            size11,
            size12,
            size13,
            size14,
            size15,
        )
        ends = (
            end0,
            end1,
            end2,
            end3,
            end4,
            end5,
            end6,
            end7,
            end8,
            end9,
            end10,
            end11,
            end12,
            end13,
            end14,
            end15,
        )
        for k in tl.static_range(16):
            if gradients[k] is not None:
                begin = 0 if k == 0 else ends[k - 1]
                if (pid >= begin) & (pid < ends[k]):
                    first = (pid - begin).to(tl.int64) * tiles * TILE
                    for start in range(first, first + tiles * TILE, TILE):
                        _tile(gradients[k], outputs[k], start, sizes[k], ratio, TILE)


@triton.jit
def _tile(gradient, output, start, size, ratio, TILE: tl.constexpr):
    lane = tl.arange(0, TILE)
    if start + TILE <= size:
        # Without a mask: its end need not lie on a boundary of 16 bytes, and would break up the accesses.
        g = tl.load(gradient + start + lane).to(ratio.dtype) * ratio
        tl.store(output + start + lane, g.to(output.dtype.element_ty))
    else:
        inside = start + lane < size
        g = tl.load(gradient + start + lane, mask=inside, other=0.0).to(ratio.dtype) * ratio
        tl.store(output + start + lane, g.to(output.dtype.element_ty), mask=inside)
