"""E0M4, the 4-bit format of Transformer-Lite §2.3 (arXiv 2403.20041): a code is the top of a half's fraction.

A group w0 is mapped to w1 = w0 · scale + bias within [2^n, 2^(n+1) − eps]. All w1 then share sign and exponent, and the
code is the highest four fraction bits y1 plus the rounding bit y2 below them: min(y1 + y2, 15). The way back is two
bit operations, as_half(exponent | code << 6), and (w1 − bias) / scale. The bias is w1 of zero: with its fraction bits
below the fourth zeroed it lies on the grid of the codes, and zero comes back as exactly zero.

The paper leaves choices open. Those made here, because they have the lowest error and meet the paper's 0.955:

- ends: the group's minimum and maximum, extended to include zero, so that bias is in the range too.
- eps: one unit in the last place of half, 2^(n−10), the least that keeps the maximum's exponent.
- bias: its low bits are zeroed as written, that is truncated. This moves the group down by up to one of 16 steps, so
  that what leaves the range below is clamped to 2^n, as §2.3 asks of every w1.
- n: 1; it changes nothing but exponents.

Mean absolute error (MAE) over that of INT4 in groups of 128, all 37 linear weights of all-MiniLM-L6-v2 together
(`python -m reference.table2` prints each matrix; tests/test_real_weights.py re-checks this table):

    eps       bias             / INT4, integer zero-point   / INT4, float zero-point
    1 ulp     truncated             0.9540                       0.9674     with fp16 scales as here 0.9544, 0.9679
    0         truncated             0.9536                       0.9670     the maximum would have another exponent
    1 ulp     nearest               0.9662                       0.9798
    1 ulp     rounded up            0.9950                       1.0090
    1 ulp     off the grid          0.9581                       0.9716     zero is not exact
    1/2 step  truncated             0.9759                       0.9897
    1 step    truncated             1.0084                       1.0227     15 steps, as INT4
    1 ulp     on the grid           0.9825                       0.9963     range stretched until no weight is clamped

Why 0.955: E0M4 divides the range into 16 steps where INT4 has 15, which alone gives 15 / 16 = 0.9375; the outermost
weights, which the clamps at 0 and 15 move by up to a step, give back 0.017. Truncating the bias wins because its shift,
half a step on average, shares the clamping between both ends; a bias rounded to nearest, or not at all, leaves all of
it to the upper end. Hence the paper's INT4 has an integer zero-point: against a float one no choice comes near 0.955.
The outermost weights are a larger share of a smaller group: 0.969 and 0.999 in groups of 64 and 32 against an integer
zero-point, 0.999 and 1.063 against a float one. E0M4 is clearly the more accurate of the two in groups of 128 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reference.groups import F16, F64, HALF_MAX, grouped, half, half_at_least

_CODE_SHIFT = 6  # a half has ten fraction bits; the code is the highest four of them
_FRACTION_BITS = 10
_EXPONENT_BIAS = 15


@dataclass(frozen=True, eq=False)
class PaperE0M4:
    """One weight matrix [N, K] in the paper's form: w = (as_half(exponent of 2^n | code << 6) − bias) / scale."""

    n: int
    group: int
    codes: NDArray[np.uint8]  # [N, K], 0…15
    scale: F16  # [N, K / group], above 0
    bias: F16  # [N, K / group], in [2^n, 2^(n+1)), its six lowest fraction bits zero


def quantize_e0m4_paper(w: ArrayLike, group: int, n: int = 1) -> PaperE0M4:
    """E0M4 codes with the paper's scale and bias (see above), zero exact.

    A weight is within half a step (1/16 of the range) of its code plus 1/128 step from rounding w1 to half, or within
    one step where a clamp held it. A group narrower than 2^n / 65504 uses fewer codes, because scale is at most 65504.

    Raises ValueError for a matrix that is not 2-D or not finite, K that is no multiple of the group, n outside
    −14…15, and a group too wide for an fp16 scale above 0.
    """
    if not -14 <= n <= 15:
        raise ValueError(f"n = {n} is no exponent of a normal half; choose -14 to 15 (the paper takes 1 or 2)")
    groups = grouped(w, group)
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    start, eps = 2.0**n, 2.0 ** (n - _FRACTION_BITS)
    with np.errstate(divide="ignore", over="ignore"):  # a span of 0 takes any scale, one of inf is refused below
        span = high - low
        widest = np.minimum((start - eps) / span, HALF_MAX)
    scale = -half_at_least(-widest, "scale")
    if (scale == 0).any():
        row, index = np.argwhere(scale == 0)[0]
        raise ValueError(
            f"group [{row}, {index}] spans {span[row, index]:.6g}, too wide for an fp16 scale of E0M4; "
            "rescale these weights or keep them in another format"
        )
    fraction_mask = np.uint16(0xFFFF << _CODE_SHIFT & 0xFFFF)
    bias = (half(start - low * scale, "bias").view(np.uint16) & fraction_mask).view(np.float16)
    w1 = groups * scale.astype(np.float64)[:, :, None] + bias.astype(np.float64)[:, :, None]
    bits = np.clip(w1, start, 2 * start - eps).astype(np.float16).view(np.uint16)
    y1 = bits >> _CODE_SHIFT & 15
    y2 = bits >> (_CODE_SHIFT - 1) & 1
    codes = np.minimum(y1 + y2, 15).astype(np.uint8)
    return PaperE0M4(n, group, codes.reshape(groups.shape[0], -1), scale, bias)


def dequantize_e0m4_paper(p: PaperE0M4) -> F64:
    """The weights [N, K] of the paper's form, in float64: the bit operations on half, then (w1 − bias) / scale."""
    exponent = np.uint16(p.n + _EXPONENT_BIAS << _FRACTION_BITS)
    w1 = (exponent | p.codes.astype(np.uint16) << _CODE_SHIFT).view(np.float16)
    groups = w1.astype(np.float64).reshape(*p.scale.shape, p.group)
    weights = (groups - p.bias.astype(np.float64)[:, :, None]) / p.scale.astype(np.float64)[:, :, None]
    return weights.reshape(p.codes.shape)
