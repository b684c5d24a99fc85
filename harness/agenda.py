"""What is to be proven on a device: configurations for the family's cover, and what cannot run there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness import emulation
from harness.legal import Pick, Picks, claims, covering
from kernels.space import Space
from kernels.spec import DeviceSheet, Family, Variant, Workload


@dataclass(frozen=True)
class Plan:
    """What will run, and what cannot."""

    picks: Mapping[tuple[str, str], tuple[Pick, ...]]  # by family and variant
    served: Mapping[tuple[str, str], int]  # workloads on a device with everything
    unsupported: Mapping[tuple[str, str], Mapping[str, int]]


def plan(families: Iterable[Family], sheet: DeviceSheet, *, quick: bool = False) -> Plan:
    """Per variant: a configuration for each workload of the cover; where a format, policy or option is new, the default
    and another; and one for each parameter value that is legal at all.

    Quick: one configuration for each workload that has something new.
    """
    picks: dict[tuple[str, str], tuple[Pick, ...]] = {}
    served: dict[tuple[str, str], int] = {}
    unsupported: dict[tuple[str, str], Mapping[str, int]] = {}
    for family in families:
        for variant in family.variants:
            key = family.name, variant.name
            picks[key], served[key], unsupported[key] = _plan_variant(family, variant, sheet, quick)
    return Plan(picks, served, unsupported)


def _plan_variant(
    family: Family, variant: Variant, sheet: DeviceSheet, quick: bool
) -> tuple[tuple[Pick, ...], int, Mapping[str, int]]:
    here = Picks(family, variant, claims(sheet))
    ideal = Picks(family, variant, claims(emulation.phone(sheet)))
    wanted = {workload: pick for workload in family.cover() if (pick := ideal.any(workload))}
    new = covering(family, wanted.__contains__)
    found: list[Pick] = []
    why: Counter[str] = Counter()
    for workload in new if quick else wanted:
        # The default first: where it is illegal `any` gives another.
        pick = here.any(workload) if workload in new and not (quick and found) else here.other(workload)
        found += [pick] if pick else []
        if pick is None:
            why[_reason(family, variant, workload, wanted[workload], sheet)] += 1
        elif not quick and workload in new and (second := here.other(workload)):
            found.append(second)
    if not quick:
        found += here.missing(list(wanted))
    distinct = {(pick.workload, str(pick.config)): pick for pick in found}
    return tuple(distinct.values()), len(new if quick else wanted), why


def _reason(family: Family, variant: Variant, workload: Workload, wanted: Pick, sheet: DeviceSheet) -> str:
    """What this device lacks for a configuration that is legal where nothing does."""
    claimed = replace(sheet, kind=wanted.sheet.kind)
    space = Space(replace(family, variants=(variant,)), workload, claimed)
    why = space.reject(wanted.config)
    return f"rejected because not: {why}" if why else "no configuration is legal"
