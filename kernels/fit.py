"""Whether an entry of a tuned config may run on a device at given sizes, and if not, why.

An engine asks the same questions with integer arithmetic alone: deny rules, limits, grids and images at its sizes.
"""

from __future__ import annotations

import re
from math import prod

from kernels.entry import source_sha256
from kernels.space import Space
from kernels.spec import DeviceSheet, Dims, Family, ImageView, Workload, evaluate
from kernels.tuned import Deny, DeviceFacts, Entry, KernelSection

_LARGEST = 2**63 - 1  # what an engine computes with


def reason_against(
    entry: Entry, section: KernelSection, workload: Workload, device: DeviceFacts, family: Family, predicted: bool
) -> str | None:
    """Why this entry may not run here, in words that go on after "not used:", or None."""
    if entry.evidence == "predicted" and not predicted:
        return "it is predicted, not measured, and predictions were not asked for"
    variants = {variant.name: variant for variant in family.variants}
    if entry.variant not in variants:
        return f"this Kiln has no variant {entry.variant}"
    if entry.source_sha256 != source_sha256(variants[entry.variant]):
        return f"it was tuned for another source of variant {entry.variant}; tune again"
    for rule in section.deny:
        if _denied(rule, entry, device.compiler):
            return f"denied on this compiler: {rule.why}"
    return _lacking(entry, workload.dims, device.sheet) or broken_rule(entry, workload, device.sheet, family)


def _denied(rule: Deny, entry: Entry, compiler: str) -> bool:
    """Whether a deny rule is about this entry. An unknown compiler may be a bad one, so ranges then count as met."""
    config = entry.config
    if any(name not in config or config[name] != value for name, value in rule.params.items()):
        return False
    return not compiler or all(compiler_meets(bound, compiler) for bound in rule.compiler)


def compiler_meets(bound: str, compiler: str) -> bool:
    """Whether a compiler's version meets a bound such as `>=E031.38`.

    Only as many numbers as the bound has are compared. Versions of two series (E031 and DX) do not compare.
    """
    match = re.fullmatch(r"(>=|<=|==|<|>)(.+)", bound)
    if match is None:
        raise ValueError(f'"{bound}" is no comparison with a compiler version; write one like >=E031.38')
    (series, limit), (theirs, version) = _version(match[2]), _version(compiler)
    if series != theirs:
        return False
    version = (*version, *[(0, "")] * len(limit))[: len(limit)]
    return {
        ">=": version >= limit,
        "<=": version <= limit,
        "==": version == limit,
        "<": version < limit,
        ">": version > limit,
    }[match[1]]


def _version(text: str) -> tuple[str, tuple[tuple[int, str], ...]]:
    """Letters in front, and the numbers as (length, digits), which order as they do however long they are."""
    series = re.match(r"[A-Za-z]*", text)
    numbers = [number.lstrip("0") for number in re.findall(r"[0-9]+", text)]
    return (series[0].lower() if series else ""), tuple((len(number), number) for number in numbers)


def _lacking(entry: Entry, dims: Dims, sheet: DeviceSheet) -> str | None:
    """What the device lacks for this entry at these sizes."""
    needs = entry.needs
    if needs.work_group > sheet.max_work_group:
        return f"needs work-groups of {needs.work_group}, the device allows {sheet.max_work_group}"
    if needs.local_bytes > sheet.local_bytes:
        return f"needs {needs.local_bytes} bytes of local memory, the device has {sheet.local_bytes}"
    if missing := [name for name in needs.extensions if not sheet.has(name)]:
        return f"needs {', '.join(missing)}, which the device has not"
    for dim, step in needs.multiple_of.items():
        if dims[dim] % step:
            return f"needs {dim} to be a multiple of {step}"
    sizes = [*(size for launch in entry.launches for size in launch.grid), *(s.bytes for s in entry.scratch)]
    if any(evaluate(size, dims) > _LARGEST for size in sizes):
        return "one of its sizes is beyond 64 bits at these dims"
    for launch in entry.launches:
        local = launch.local or ()
        if prod(local) > sheet.max_work_group or any(
            size > most for size, most in zip(local, sheet.max_work_item_sizes, strict=False)
        ):
            return f"work-groups of {'×'.join(map(str, local))} are too large for the device"
        if any(evaluate(size, dims) % step for size, step in zip(launch.grid, local, strict=bool(local))):
            return f"its grid is no multiple of its work-group at these sizes (launch {launch.entry})"
        for view in (arg for arg in launch.args if isinstance(arg, ImageView)):
            if why := _lacking_image(evaluate(view.width, dims), evaluate(view.height, dims), sheet):
                return why
    return None


def _lacking_image(width: int, height: int, sheet: DeviceSheet) -> str | None:
    if sheet.image2d is None or not sheet.image_pitch_texels:
        return "needs images over buffers, which the device has not"
    if width > sheet.image2d[0] or height > sheet.image2d[1]:
        return f"needs an image of {width}×{height}, the device allows {sheet.image2d[0]}×{sheet.image2d[1]}"
    if width % sheet.image_pitch_texels:
        return f"needs image rows of {width} texels, the device wants multiples of {sheet.image_pitch_texels}"
    return None


def broken_rule(entry: Entry, workload: Workload, sheet: DeviceSheet, family: Family) -> str | None:
    """The rule of the family or variant that does not hold here, if there is one; where it was tuned all did."""
    why = Space(family, workload, sheet).illegal(entry.config)
    return None if why is None else f'its rule "{why}" does not hold here'
