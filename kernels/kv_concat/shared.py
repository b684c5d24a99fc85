"""What the variants of kv_concat share: arguments, layouts as parameters, rules and traffic."""

from __future__ import annotations

from math import gcd

from kernels import cache
from kernels.kv_concat.cases import least_cost, rotary
from kernels.spec import Rule, Traffic, Workload

LAYOUTS = {"KL": cache.LAYOUT_PARAMS, "VL": cache.LAYOUT_PARAMS}


def heads(workload: Workload) -> str:
    """The dim that a launch's head index runs over: with Q turned, every query head."""
    return "H" if workload.options.get("q") else "G"


def tensors(workload: Workload) -> int:
    """K and V, and Q where it is turned."""
    return 3 if workload.options.get("q") else 2


def arguments(workload: Workload) -> tuple[str, ...]:
    """In the order of CONCAT_PARAMS in head.clh."""
    q = ("q",) if workload.options.get("q") else ()
    rope = ("rope",) if workload.options.get("rope") else ()
    scales = () if workload.dtypes.cache == "fp16" else ("ks", "vs")
    return ("k_new", "v_new", *q, "positions", *rope, "k", "v", *scales, "M", "G", "H", "S")


def traffic(workload: Workload, items: int, *, local: int = 0, registers: int = 0) -> Traffic:
    """The least bytes: what a variant reads twice (a row of the table, a head row) it finds in a cache."""
    cost = least_cost(workload)
    return Traffic(
        read_bytes=cost.bytes - cost.written,
        write_bytes=cost.written,
        flops=cost.flops,
        local_bytes=local,
        registers=registers,
        work_items=items,
    )


def widest(workload: Workload) -> int:
    """The largest power of two up to 16 that divides a head's pairs and those that turn: every vector up to it fits."""
    return gcd(16, workload.dims["D"] // 2, rotary(workload) // 2)


PAIRS_RULE = Rule(
    "a head's pairs, and those that turn, are whole vectors", ("VEC",), lambda c, w, s: widest(w) % c["VEC"] == 0
)
WG_RULE = Rule(
    "the work-group is allowed",
    ("WG",),
    lambda c, w, s: c["WG"] <= min(s.max_work_group, s.max_work_item_sizes[0]),
)
GPU_RULE = Rule("the device is a GPU (a CPU takes heads' wide vectors)", (), lambda c, w, s: s.kind != "cpu")
