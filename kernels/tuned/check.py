"""Relations that must hold within a document: ids, arguments, routes, buckets without overlaps and gaps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from kernels.spec import Ceil, ImageView
from kernels.tuned.nouns import Bucket, ConfigError, Entry, Interval, KernelSection, Match, TunedConfig

_UNBOUNDED = 1 << 62  # stands for an interval without an upper end: beyond every size, exact as an integer


def check(config: TunedConfig) -> None:
    """Raise ConfigError at the first relation that does not hold, naming the entries."""
    for name, section in config.kernels.items():
        _check_ids(name, section)
        for entry in section.entries:
            _check_names(name, section, entry)
        # By equality, as entries are found: options of 1, 1.0 and true are one match, whatever their texts.
        by_match: list[tuple[Match, list[tuple[str, Bucket]]]] = []
        for entry in section.entries:
            if entry.bucket is not None:
                mine = next((buckets for match, buckets in by_match if match == entry.match), None)
                if mine is None:
                    by_match.append((entry.match, [(entry.id, entry.bucket)]))
                else:
                    mine.append((entry.id, entry.bucket))
        for match, buckets in by_match:
            _check_tiling(f"kernel {name}, {match}", buckets)
    for op, routes in config.ops.items():
        for route in routes:
            if route.kernel not in config.kernels:
                raise _error(f"op {op}", f'routes to "{route.kernel}", which the document has no kernel for')
        for (i, one), (j, other) in itertools.combinations(enumerate(routes), 2):
            formats = {one.weights, other.weights}
            if (len(formats) == 1 or None in formats) and _overlap(one.bucket, other.bucket):
                raise _error(f"op {op}", f"has routes {i} and {j} for the same sizes")


def _error(where: str, what: str) -> ConfigError:
    return ConfigError(f"{where} {what}; tune again or restore the file")


def _check_ids(name: str, section: KernelSection) -> None:
    entries = {entry.id: entry for entry in section.entries}
    if len(entries) < len(section.entries):
        ids = [entry.id for entry in section.entries]
        twice = next(i for i in ids if ids.count(i) > 1)
        raise _error(f"kernel {name}", f'has two entries with the id "{twice}"')
    if section.default not in entries:
        raise _error(f"kernel {name}", f'names "{section.default}" as default, which is no entry\'s id')
    for entry in section.entries:
        for other in entry.alternates:
            if other not in entries or other == entry.id:
                raise _error(
                    f'kernel {name}, entry "{entry.id}"', f'has the alternate "{other}", which is no other entry'
                )
            if entries[other].match != entry.match:
                raise _error(
                    f'kernel {name}, entry "{entry.id}"', f'has the alternate "{other}", which is for other jobs'
                )


def _check_names(name: str, section: KernelSection, entry: Entry) -> None:
    """Everything that an entry refers to by name exists: arguments, scratch buffers, dims."""
    where = f'kernel {name}, entry "{entry.id}"'
    dims = set(section.abi.names("dim"))
    buffers = {arg.name for arg in section.abi.args} - dims | {scratch.name for scratch in entry.scratch}
    sizes = [scratch.bytes for scratch in entry.scratch]
    for launch in entry.launches:
        sizes += launch.grid
        for arg in launch.args:
            if isinstance(arg, ImageView):
                sizes += [arg.width, arg.height]
                passed, allowed = arg.of, buffers
            else:
                passed, allowed = arg, buffers | dims
            if passed not in allowed:
                raise _error(where, f"passes {passed}, which is neither an argument nor scratch")
    named = {factor.dim for size in sizes for factor in size if isinstance(factor, Ceil)}
    for what, found in (("a size", named), ("its bucket", entry.bucket or {}), ("its needs", entry.needs.multiple_of)):
        if unknown := sorted(set(found) - dims):
            raise _error(
                where, f"has {what} in {unknown[0]}, which is no dim of the kernel ({', '.join(sorted(dims))})"
            )


def _overlap(one: Bucket, other: Bucket) -> bool:
    return all(_meet(one[dim], other[dim]) for dim in one.keys() & other.keys())


def _meet(one: Interval, other: Interval) -> bool:
    (a, b), (c, d) = _half_open(one), _half_open(other)
    return a < d and c < b


def _half_open(interval: Interval) -> tuple[int, int]:
    low, high = interval
    return low, _UNBOUNDED if high is None else high + 1


def _check_tiling(where: str, buckets: Sequence[tuple[str, Bucket]]) -> None:
    """The buckets of one match cut one box of sizes into parts: no two overlap, and nothing between them is free."""
    dims = tuple(sorted(buckets[0][1]))
    for entry, bucket in buckets:
        if tuple(sorted(bucket)) != dims:
            raise _error(where, f'has entries "{buckets[0][0]}" and "{entry}" with buckets in different dims')
    for (one, first), (other, second) in itertools.combinations(buckets, 2):
        if _overlap(first, second):
            raise _error(where, f'has overlapping buckets: entries "{one}" and "{other}"')
    sides = {dim: [_half_open(bucket[dim]) for _, bucket in buckets] for dim in dims}
    whole = math.prod(max(b for _, b in side) - min(a for a, _ in side) for side in sides.values())
    filled = sum(math.prod(b - a for a, b in (_half_open(bucket[d]) for d in dims)) for _, bucket in buckets)
    if filled < whole:  # none overlap, so volumes add up, in exact integers
        cell = _free_cell(dims, sides)
        near = sorted(buckets, key=lambda item: _distance(item[1], cell))[:2]
        sizes = ", ".join(f"{dim} {low}…{'' if high is None else high}" for dim, (low, high) in cell.items())
        raise _error(where, f'leaves a gap at {sizes}, beside entries "{near[0][0]}" and "{near[-1][0]}"')


def _free_cell(dims: Sequence[str], sides: dict[str, list[tuple[int, int]]]) -> dict[str, Interval]:
    """The first cell of the grid of all edges that no bucket covers.

    Dim after dim, the first slab between two edges that is not filled: volumes tell, so that a document of many dims
    takes no longer than its edges and buckets are many.
    """
    boxes = list(zip(*(sides[dim] for dim in dims), strict=True))
    wholes = [max(b for _, b in sides[dim]) - min(a for a, _ in sides[dim]) for dim in dims]
    cell: dict[str, Interval] = {}
    for at, dim in enumerate(dims):
        for low, high in itertools.pairwise(sorted({edge for side in sides[dim] for edge in side})):
            within = [box for box in boxes if box[at][0] <= low < box[at][1]]
            filled = sum(math.prod(b - a for a, b in box[at + 1 :]) for box in within)
            if filled < math.prod(wholes[at + 1 :]):
                cell[dim] = (low, None if high == _UNBOUNDED else high - 1)
                boxes = within
                break
    return cell


def _distance(bucket: Bucket, cell: Bucket) -> float:
    return sum(interval_distance(bucket[dim], low) for dim, (low, _) in cell.items())


def interval_distance(interval: Interval, size: int) -> float:
    """How far a size lies outside an interval, in powers of two; 0 inside."""
    low, high = interval
    if size < low:
        return math.log2(low / size)
    return 0.0 if high is None or size <= high else math.log2(size / high)
