"""Makes an entry of a tuned config from a candidate: source hash, options, launches, layouts and what it needs."""

from __future__ import annotations

import hashlib
from math import prod

from kernels.spec import Config, DeviceSheet, Family, ImageView, Variant, Workload, build_options, evaluate
from kernels.tuned import (
    Bucket,
    Entry,
    EntryStats,
    Evidence,
    Match,
    Needs,
    Prediction,
    Verification,
)


def source_sha256(variant: Variant) -> str:
    """What a document names a variant's flattened source by."""
    return hashlib.sha256(variant.source.encode("utf-8")).hexdigest()


def make_entry(
    family: Family,
    workload: Workload,
    config: Config,
    sheet: DeviceSheet,
    *,
    id: str,
    bucket: Bucket | None,
    verification: Verification | None,
    stats: EntryStats | None = None,
    prediction: Prediction | None = None,
    alternates: tuple[str, ...] = (),
) -> Entry:
    """The entry for a configuration that was tuned at `workload`'s sizes on `sheet`'s device.

    Its evidence follows from which of `stats` and `prediction` is given; with neither it is built-in, which no document
    may hold.
    """
    evidence: Evidence = "measured" if stats else "predicted" if prediction else "built-in"
    variant = family.variant(config["variant"])
    schedule = variant.schedule(config, workload)
    return Entry(
        id=id,
        match=Match.of(workload, family),
        bucket=bucket,
        variant=variant.name,
        params={name: value for name, value in config.items() if name != "variant"},
        source_sha256=source_sha256(variant),
        build_options=build_options(family, config, workload),
        launches=schedule.launches,
        scratch=schedule.scratch,
        layout=dict(variant.layouts(config, workload)),
        needs=needs_of(family, workload, config, sheet),
        evidence=evidence,
        stats=stats,
        prediction=prediction,
        verification=verification,
        alternates=alternates,
    )


def needs_of(family: Family, workload: Workload, config: Config, sheet: DeviceSheet) -> Needs:
    """What a device must offer for this configuration."""
    variant = family.variant(config["variant"])
    launches = variant.schedule(config, workload).launches
    views = [arg for launch in launches for arg in launch.args if isinstance(arg, ImageView)]
    sizes = [(evaluate(view.width, workload.dims), evaluate(view.height, workload.dims)) for view in views]
    return Needs(
        work_group=max((prod(launch.local) for launch in launches if launch.local), default=1),
        local_bytes=variant.traffic(config, workload, sheet).local_bytes,
        extensions=variant.needs,
        image2d=(max(w for w, _ in sizes), max(h for _, h in sizes)) if sizes else None,
        multiple_of=_multiples(family, variant, workload, sheet),
    )


def _multiples(family: Family, variant: Variant, workload: Workload, sheet: DeviceSheet) -> dict[str, int]:
    """Steps that dims must come in for the family and variant to serve them at all, found by asking their rules.

    A rule is a predicate, so a step is believed when the two nearest multiples on either side pass too. A mere bound
    that is near fails at every step and gives none. An engine that has only the document can then refuse a size by one
    division.
    """
    rules = (*family.workload_rules, *variant.workload_rules)
    steps = {}
    for dim, size in workload.dims.items():
        if dim in family.fixed:
            continue
        for step in (2**power for power in range(9)):
            tried = [size + step * away for away in (-2, -1, 0, 1, 2) if size + step * away > 0]
            if all(
                r.holds({"variant": variant.name}, workload.with_dims(**{dim: n}), sheet) for n in tried for r in rules
            ):
                if step > 1:
                    steps[dim] = step
                break
    return steps


def built_in_entry(family: Family, workload: Workload, sheet: DeviceSheet) -> Entry:
    """What runs where nothing was tuned: the family's own safe default."""
    config = family.default(workload, sheet)
    return make_entry(family, workload, config, sheet, id="built-in", bucket=None, verification=None)
