"""Is a candidate right? Run it on its own shape and on awkward ones, and compare with the float64 reference.

Two errors decide: NMSE (sum of squared errors over sum of squared expected values, as ggml's test-backend-ops has it),
which sees a result that is wrong all over, and the largest absolute error over the root mean square of the expected
values, which sees one wrong element among a million. The limits are the case's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod

import numpy as np

from harness.answers import Refused, RunnerLost
from harness.binding import POISON, Bench, Bound, Guarded, bind
from harness.candidate import Candidate
from kernels.spec import Case, Dims, Errors, Measurement, Tolerance, Verdict

# A right candidate takes milliseconds. But PoCL compiles at the first launch: up to ten seconds of a core for the
# largest unrolled kernels (gemv_decode's panel, 8 blocks by 4 tokens from local memory, Zen 3), more on a busy one.
_RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Distance:
    """How far an output is from what it should be."""

    nmse: float
    max_scaled: float
    worst: tuple[int, ...]  # index of the element with the largest error, the first that is not finite if there is one
    bad: int  # how many elements are not finite where a finite value is expected


def distance(got: np.ndarray, expected: np.ndarray) -> Distance:
    """Both errors of an output, inf where an element is not finite. The two have one shape."""
    got = got.astype(np.float64)
    finite = np.isfinite(got) | ~np.isfinite(expected)
    if not finite.all():
        first = tuple(int(i) for i in np.unravel_index(int(np.argmin(finite)), got.shape))
        return Distance(np.inf, np.inf, first, int(got.size - np.count_nonzero(finite)))
    error = np.abs(got - expected)
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(error)), got.shape))
    power = float(np.mean(np.square(expected)))
    if power == 0.0:  # nothing but zeros is expected: any error at all is infinitely large beside it
        exact = not error.any()
        return Distance(0.0 if exact else np.inf, 0.0 if exact else np.inf, worst, 0)
    return Distance(float(np.mean(np.square(error))) / power, float(error[worst] / np.sqrt(power)), worst, 0)


def check(bench: Bench, candidate: Candidate, timeout_s: float | None = None) -> Errors | Measurement:
    """The errors over all shapes, or the failure. The program must be built; its own shape comes last.

    Shapes that a rule of the variant excludes, or that need another build, are passed over.
    """
    awkward = (candidate.at(workload, bench.sheet) for workload in candidate.family.awkward(candidate.workload))
    shapes = [*(other for other in awkward if other and other.workload != candidate.workload), candidate]
    every: list[Errors] = []
    for shape in shapes:
        found = check_shape(bench, shape, timeout_s)
        if isinstance(found, Measurement):
            return found
        every.append(found)
    return reduce(Errors.and_also, every)


def shape_text(dims: Dims) -> str:
    """Dims for people: `M=1 N=33 K=256`."""
    return " ".join(f"{name}={value}" for name, value in dims.items())


def check_shape(bench: Bench, candidate: Candidate, timeout_s: float | None = None) -> Errors | Measurement:
    """The errors at the candidate's own shape alone, or the failure. The program must be built."""
    dims = shape_text(candidate.workload.dims)
    case = bench.cases.case(candidate.family, candidate.workload)
    bound: Bound | None = None
    try:
        bound = bind(bench, candidate)
        timeout_s = timeout_s or _RUN_TIMEOUT_S
        bench.supervisor.run(bound.program, bound.launches, restore=bound.restore, timeout_s=timeout_s)
        fetched = {name: bench.supervisor.get(part.buf) for name, part in bound.outputs.items()}
        margins = {name: _margins(bench, part) for name, part in bound.scratch.items()}
    except (Refused, RunnerLost) as failure:
        if bound and isinstance(failure, Refused):
            bench.supervisor.drop(bufs=bound.buffers)
        return Measurement.failed(failure.verdict, f"at {dims}: {failure}")
    bench.supervisor.drop(bufs=bound.buffers)
    return judge(case, dims, candidate.layouts, bound.outputs, fetched, margins)


def _margins(bench: Bench, part: Guarded) -> tuple[bytearray, bytearray]:
    if not part.margin:
        return bytearray(), bytearray()
    get = bench.supervisor.get
    return get(part.buf, 0, part.margin), get(part.buf, part.margin + part.bytes, part.margin)


def judge(
    case: Case,
    dims: str,
    layouts: Mapping[str, str],
    outputs: Mapping[str, Guarded],
    fetched: Mapping[str, bytearray],
    scratch: Mapping[str, tuple[bytearray, bytearray]],
) -> Errors | Measurement:
    """Judge what came back: whole guarded outputs, and the two margins of each scratch buffer."""
    sides = dict(scratch)
    for name, part in outputs.items():
        sides[name] = fetched[name][: part.margin], fetched[name][part.margin + part.bytes :]
    for name, (low, high) in sides.items():
        if touched := _touched(low, high):
            return _wrong(dims, f"{name} is written {touched}")
    stored = {name: _content(part, fetched[name]) for name, part in outputs.items()}
    values = case.read(stored, layouts) if case.read else stored
    nmse = max_scaled = 0.0
    for name, expected in case.expected.items():
        content = values[name]
        found = distance(content, expected)
        limit = Tolerance(0.0, 0.0) if name in case.exact else case.tolerance
        if why := _excess(found, limit, content, expected):
            return _wrong(dims, f"{name}: {why}")
        nmse, max_scaled = max(nmse, found.nmse), max(max_scaled, found.max_scaled)
    return Errors(nmse, max_scaled, case.tolerance, (dims,))


def _content(part: Guarded, fetched: bytearray) -> np.ndarray:
    assert part.stored is not None, f"{part.name} is an output"
    count = prod(part.stored.shape)
    return np.frombuffer(fetched, part.stored.dtype, count, part.margin).reshape(part.stored.shape)


def _wrong(dims: str, why: str) -> Measurement:
    return Measurement.failed(Verdict.WRONG_RESULT, f"at {dims}: {why}")


def _touched(low: bytearray, high: bytearray) -> str | None:
    """Where a margin was written, in bytes from the buffer's own begin or end; None when both are clean."""
    before = np.flatnonzero(np.frombuffer(low, np.uint8) != POISON)
    if before.size:
        return f"at byte {len(low) - int(before[-1])} before its begin"
    after = np.flatnonzero(np.frombuffer(high, np.uint8) != POISON)
    return f"at byte {int(after[0]) + 1} past its end" if after.size else None


def _excess(found: Distance, limit: Tolerance, content: np.ndarray, expected: np.ndarray) -> str | None:
    """What is wrong with an output, with its worst element; None when it is right."""
    at = f"[{', '.join(map(str, found.worst))}]"
    if found.bad:
        untouched = bool((np.ascontiguousarray(content[found.worst]).view(np.uint8) == POISON).all())
        value = "never written" if untouched else f"{content[found.worst]}"
        return f"{found.bad} of {content.size} elements are not finite, the first at {at} ({value})"
    worst = f"worst at {at}: {float(content[found.worst]):.6g} where {float(expected[found.worst]):.6g} is expected"
    pairs = ("nmse", found.nmse, limit.nmse), ("max_scaled", found.max_scaled, limit.max_scaled)
    for metric, error, most in pairs:
        if not error <= most:
            return f"{metric} {error:.3g} exceeds {most:.3g}; {worst}"
    return None
