"""`loopy_rows`: a row per work-group as loopy generates it (see loopy_generate.py), in the same space as our own."""

from __future__ import annotations

from kernels.rmsnorm.norm import Options, least_cost
from kernels.source import source
from kernels.spec import Ceil, Config, DeviceSheet, Launch, Rule, Schedule, Traffic, Variant, Workload


def _schedule(config: Config, workload: Workload) -> Schedule:
    lanes = config["LANES"]
    return Schedule((Launch("norm", ((Ceil("M", 1), lanes),), (lanes,), Options.of(workload).arguments),))


def _traffic(config: Config, workload: Workload, sheet: DeviceSheet) -> Traffic:
    """Every pass over a row reads x and r, which a CPU's cache serves, and adds them up again."""
    cost, options = least_cost(workload), Options.of(workload)
    elements = workload.dims["M"] * workload.dims["N"]
    more = 2 if options.norm == "layer" else 1
    act_bytes = 2 if workload.dtypes.act == "fp16" else 4
    again = 0 if sheet.kind == "cpu" else more * (1 + options.residual) * elements * act_bytes
    flops = cost.flops + more * elements * (options.residual + (options.norm == "layer"))
    local = 4 * (more * int(config["LANES"]) + more) if config["LANES"] > 1 else 0
    items = workload.dims["M"] * int(config["LANES"])
    return Traffic(cost.bytes - cost.written + again, cost.written, flops, local, 24, items)


LOOPY_ROWS = Variant(
    name="loopy_rows",
    source=source("rmsnorm", "loopy_rows.cl"),
    params={"LANES": (1, 64, 256)},
    default={"LANES": 64},
    rules=(
        Rule("the work-group is allowed", ("LANES",), lambda c, w, s: c["LANES"] <= s.max_work_group),
        Rule(
            "a GPU reads a row with whole waves",
            ("LANES",),
            lambda c, w, s: s.kind == "cpu" or c["LANES"] > 1,
            prunes=True,
        ),
    ),
    schedule=_schedule,
    traffic=_traffic,
    layouts=lambda c, w: {},
    workload_rules=(
        Rule("the generated kernels write activations, not codes", (), lambda c, w, s: not Options.of(w).int8),
        Rule("their indices fit 32 bits", (), lambda c, w, s: w.dims["M"] * w.dims["N"] < 2**31),
    ),
)
