"""What the variants of gemm_prefill share: arguments by format and epilogue, rules over their parameters, traffic."""

from __future__ import annotations

from collections.abc import Mapping

from kernels import linear
from kernels.spec import Config, DeviceSheet, Rule, Traffic, Workload

_ACTS = {None: 0, "silu": 1, "gelu": 2, "gelu_tanh": 3, "quick_gelu": 4}


def defines(workload: Workload) -> Mapping[str, int | float]:
    """Weight format, dtype policy and epilogue. Raises ValueError for options that do not exist."""
    linear.check_options(workload)
    return {
        **linear.defines(workload),
        "EPILOGUE_ACT": _ACTS[workload.options.get("act")],
        "EPILOGUE_BIAS": int(has(workload, "bias")),
        "EPILOGUE_GATED": int(has(workload, "gated")),
        "EPILOGUE_RESIDUAL": int(has(workload, "residual")),
    }


def has(workload: Workload, option: str) -> bool:
    """Whether the epilogue has this part."""
    return bool(workload.options.get(option))


def matrices(workload: Workload) -> int:
    """Weight matrices of a job: two where it is gated."""
    return 2 if has(workload, "gated") else 1


def weights(workload: Workload) -> tuple[str, ...]:
    """Weights and scales in the order of the kernels' parameters."""
    one = ("w",) if workload.format.kind == "fp16" else ("w", "sb")
    return (*one, *(f"{name}_up" for name in one)) if has(workload, "gated") else one


def epilogue(workload: Workload) -> tuple[str, ...]:
    """Biases and residual, in the order of the kernels' parameters."""
    biases = ("bias", "bias_up")[: matrices(workload)] if has(workload, "bias") else ()
    return (*biases, *(("r",) if has(workload, "residual") else ()))


def act_bytes(workload: Workload) -> int:
    """Bytes of one activation."""
    return 2 if workload.dtypes.act == "fp16" else 4


def decode_flops(config: Config, workload: Workload) -> float:
    """Operations that turn a code into a weight, for each time that one is decoded."""
    return 2.0 if workload.format.kind == "fp16" else {0: 5.0, 1: 4.0, 2: 3.5}[config.get("DECODE", 1)]


def traffic(
    config: Config, workload: Workload, tiles: int, *, moved: float = 0.0, local: int = 0, registers: int, items: int
) -> Traffic:
    """Weights once per tile of tokens, x once, `moved` bytes of scratch written and read again."""
    N, K, P = workload.dims["N"], workload.dims["K"], config["P"]
    padded = -(-N // P) * P
    cost = linear.least_cost(workload)
    weight_bytes = matrices(workload) * padded * K * workload.format.bits_per_weight / 8
    return Traffic(
        read_bytes=cost.bytes - cost.written + (tiles - 1) * weight_bytes + moved,
        write_bytes=cost.written + moved,
        flops=cost.flops + matrices(workload) * padded * K * decode_flops(config, workload) * tiles,
        local_bytes=local,
        registers=registers,
        work_items=items,
    )


def _decodes(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Whether DECODE names a method that this format has and that differs from a smaller number's."""
    kind, method = workload.format.kind, config["DECODE"]
    if workload.dtypes.compute == "fp16":
        return bool(method in (0, 1) if workload.format.group else method == 1)
    if kind == "fp16":
        return bool(method == 1 or (method == 0 and sheet.has("cl_khr_fp16")))
    return bool(method in (0, 1) or workload.format.group)


DECODE_RULE = Rule("the format has this way of decoding", ("DECODE",), _decodes)
PANEL_RULE = Rule("a panel holds whole vectors", ("P", "VEC"), lambda c, w, s: c["P"] % c["VEC"] == 0)
LOAD_RULE = Rule("a GPU loads 128 bits at most", ("VEC",), lambda c, w, s: s.kind == "cpu" or c["VEC"] <= 4)
HALF_RULE = Rule(
    "pairs of halves fit a vector of sixteen", ("VEC",), lambda c, w, s: w.dtypes.compute != "fp16" or c["VEC"] <= 8
)
TILE_RULE = Rule(
    "a tile of tokens is no larger than M needs", ("TM",), lambda c, w, s: c["TM"] < 2 * w.dims["M"], prunes=True
)
FLOAT_ONLY = Rule(
    "products are in floating point (the int8 policy has its own variants)",
    (),
    lambda c, w, s: w.dtypes.compute != "int8",
)
