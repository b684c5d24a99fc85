"""How a variant runs on a device that lacks what it needs: each emulation claims a fact of the sheet and makes it good.

For proving only: what is measured or emitted is never emulated. Kernels know EMULATE_SUBGROUPS (`_common/teams.clh`)
and compute halves in float by themselves where cl_khr_fp16 is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce

from kernels.spec import DeviceSheet, Variant

_PHONE_SUBGROUPS = (8, 16, 32, 64)
_PHONE_PITCH_TEXELS = 64  # Adreno's and Mali's
_PHONE_IMAGE = (16384, 16384)

# cl_khr_integer_dot_product's built-ins for packed bytes (s signed, u unsigned), by name and argument types. Macros
# take their place, because a compiler may declare what its device does not have.
_DOT = "#define cl_khr_integer_dot_product 1\n" + "".join(
    f"""
static inline {result} kiln_dot_{kinds}(uint a, uint b) {{
  const {left}4 x = as_{left}4(a);
  const {right}4 y = as_{right}4(b);
  return ({result})x.s0 * ({result})y.s0 + ({result})x.s1 * ({result})y.s1 + ({result})x.s2 * ({result})y.s2
    + ({result})x.s3 * ({result})y.s3;
}}
#define dot_4x8packed_{kinds}_{result}(a, b) kiln_dot_{kinds}(a, b)
#define dot_acc_sat_4x8packed_{kinds}_{result}(a, b, c) add_sat(kiln_dot_{kinds}(a, b), ({result})(c))
"""
    for kinds, left, right, result in (
        ("ss", "char", "char", "int"),
        ("us", "uchar", "char", "int"),
        ("su", "char", "uchar", "int"),
        ("uu", "uchar", "uchar", "uint"),
    )
)


# An image is what `harness.runner.texels` makes of it; a texel outside is read beyond the buffer's end, to be noticed.
_IMAGES = """
typedef __global const uint4 *kiln_image;
static inline uint4 kiln_texel(kiln_image image, int2 at) {
  const int2 size = as_int2(image[0].lo);
  const bool inside = at.x >= 0 && at.x < size.x && at.y >= 0 && at.y < size.y;
  return image[1 + (inside ? at.y * size.x + at.x : size.x * size.y)];
}
#define __read_only
#define read_only
#define image2d_t kiln_image
#define KILN_SECOND(a, b, ...) b  // of (sampler, at, sampler, at) or (at, at)
#define read_imageui(image, ...) kiln_texel(image, KILN_SECOND(__VA_ARGS__, __VA_ARGS__))
#define read_imagei(image, ...) as_int4(read_imageui(image, __VA_ARGS__))
#define read_imagef(image, ...) as_float4(read_imageui(image, __VA_ARGS__))
#define get_image_width(image) as_int((image)[0].x)
#define get_image_height(image) as_int((image)[0].y)
"""


@dataclass(frozen=True)
class Emulation:
    """One thing that a device may lack."""

    name: str  # for people
    claim: Callable[[DeviceSheet], DeviceSheet]
    prelude: str = ""  # OpenCL C before the variant's source
    texels: bool = False  # the runner gives a buffer of texels for an image


def _with(sheet: DeviceSheet, *extensions: str) -> DeviceSheet:
    return replace(sheet, extensions=sheet.extensions.union(extensions))


EMULATIONS = (
    Emulation("float for half", lambda sheet: _with(sheet, "cl_khr_fp16")),
    Emulation(
        "a tree for subgroups",
        lambda sheet: replace(_with(sheet, "cl_khr_subgroups"), subgroup_sizes=_PHONE_SUBGROUPS),
        prelude="#define EMULATE_SUBGROUPS\n",
    ),
    Emulation(
        "buffers for images",
        lambda sheet: replace(
            _with(sheet, "cl_khr_image2d_from_buffer"),
            image2d=sheet.image2d or _PHONE_IMAGE,
            image_pitch_texels=_PHONE_PITCH_TEXELS,
            image_base_texels=_PHONE_PITCH_TEXELS,
        ),
        prelude=_IMAGES,
        texels=True,
    ),
    Emulation(
        "multiplications for dot products",
        lambda sheet: replace(_with(sheet, "cl_khr_integer_dot_product"), opencl_c=max(sheet.opencl_c, (3, 0))),
        prelude=_DOT,
    ),
)


@dataclass(frozen=True)
class Form:
    """A way to run a variant: as it is, or with some emulations."""

    emulations: tuple[Emulation, ...] = ()

    @property
    def texels(self) -> bool:
        """Whether buffers stand in for images."""
        return any(e.texels for e in self.emulations)

    def claim(self, sheet: DeviceSheet) -> DeviceSheet:
        """The sheet that rules are asked with."""
        return reduce(lambda claimed, emulation: emulation.claim(claimed), self.emulations, sheet)

    def of(self, variant: Variant, sheet: DeviceSheet, prelude: str = "") -> Variant:
        """The variant as `sheet`'s device can compile it, after a `prelude` of the device's own.

        Extensions that the device does not report are undefined first: clang defines them for Oclgrind all the same.
        """
        absent = sorted(set(_ASKED.findall(variant.source)) - sheet.extensions)
        lines = [*(f"#undef {name}\n" for name in absent), prelude, *(e.prelude for e in self.emulations)]
        options = tuple(o for o in variant.options if not (o.startswith("-cl-std=") and sheet.opencl_c < (2, 0)))
        return replace(variant, source="".join([*lines, BEGIN, variant.source]), options=options)

    def __str__(self) -> str:
        return ", ".join(e.name for e in self.emulations) or "native"


BEGIN = "#line 1\n"  # a variant's own source follows, and its lines are counted from here
NATIVE = Form()
EVERYTHING = Form(EMULATIONS)
_ASKED = re.compile(r"\b(cl_[a-z]+_[a-z0-9_]+)\b")


def forms() -> Iterator[Form]:
    """From the least emulated to the most: none, one thing, all."""
    yield NATIVE
    for emulation in EMULATIONS:
        yield Form((emulation,))
    yield EVERYTHING


def phone(sheet: DeviceSheet) -> DeviceSheet:
    """The sheet as if the device had everything that an emulation stands for."""
    return EVERYTHING.claim(sheet)
