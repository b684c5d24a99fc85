"""What the variants with lanes along outputs share: rules over their parameters, layouts and traffic."""

from __future__ import annotations

from kernels import linear
from kernels.layouts import CODES
from kernels.spec import Ceil, Config, DeviceSheet, Rule, Size, Traffic, Workload

TOKENS = (1, 2, 4, 8, 16)


def tokens_up(workload: Workload) -> int:
    """M rounded up to a power of two."""
    return 1 << (workload.dims["M"] - 1).bit_length()


def arguments(workload: Workload, *between: str) -> tuple[str, ...]:
    """x, w, the scales where the format has any, then `between`, then the sizes."""
    scales = () if workload.format.kind == "fp16" else ("sb",)
    return ("x", "w", *scales, *between, "M", "N", "K")


def token_tiles(config: Config) -> Size:
    """Work-groups along tokens."""
    return (Ceil("M", config["MT"]),)


def registers(config: Config, workload: Workload) -> int:
    """32-bit registers for totals, sums, one word per block and its activations."""
    tokens, lanes = int(config["MT"]), int(config["VEC"] * config.get("BLOCKS", 1))
    halves = 2 if workload.dtypes.compute == "fp16" else 1  # halves of a unit pack two to a register
    return lanes * (2 * tokens + 2) + tokens * CODES[workload.format.kind] // halves


def local_bytes(config: Config, workload: Workload, waves: int = 1) -> int:
    """Local memory of the staged chunk of x."""
    if not config.get("XLOCAL", 0):
        return 0
    item = 2 if workload.dtypes.compute == "fp16" else 4
    return waves * int(config["MT"]) * linear.chunk(workload) * item


def traffic(config: Config, workload: Workload, work_items: int, local: int) -> Traffic:
    """Weights once per tile of tokens; x once per work-item that reads it; integer operations of decoding as flops."""
    M, N, K = (workload.dims[name] for name in ("M", "N", "K"))
    tiles = -(-M // config["MT"])
    padded = -(-N // config["P"]) * config["P"]
    act_bytes = 2 if workload.dtypes.act == "fp16" else 4
    decode = 0 if workload.format.kind == "fp16" else {0: 3, 1: 2, 2: 1.5}[config["DECODE"]]
    return Traffic(
        read_bytes=padded * K * workload.format.bits_per_weight / 8 * tiles + M * K * act_bytes,
        write_bytes=float(M * N * act_bytes),
        flops=padded * K * (2.0 * M + decode * tiles),
        local_bytes=local,
        registers=registers(config, workload),
        work_items=work_items,
    )


def _decodes(config: Config, workload: Workload, sheet: DeviceSheet) -> bool:
    """Whether DECODE names a method that this format has and that differs from a smaller number's."""
    kind, method = workload.format.kind, config["DECODE"]
    if workload.dtypes.compute == "fp16":
        return bool(method in (0, 1) if workload.format.group else method == 1)
    if kind == "fp16":
        return bool(method == 1 or (method == 0 and sheet.has("cl_khr_fp16")))
    return bool(method in (0, 1) or workload.format.group)


def _register_limit(sheet: DeviceSheet) -> int:
    # A GPU thread has 128 registers at best before it spills; a CPU has 32 vector registers of up to 16 lanes and
    # a first-level cache behind them.
    return 1024 if sheet.kind == "cpu" else 128


DECODE_RULE = Rule("the format has this way of decoding", ("DECODE",), _decodes)
PANEL_RULE = Rule("a panel holds whole vectors", ("P", "VEC"), lambda c, w, s: c["P"] % c["VEC"] == 0)
TOKENS_RULE = Rule(
    "a tile of tokens is no larger than M needs, and decodes the weights twice at most",
    ("MT",),
    lambda c, w, s: tokens_up(w) // 2 <= c["MT"] <= tokens_up(w),
    prunes=True,
)
HALF_RULE = Rule(
    "pairs of halves fit a vector of sixteen", ("VEC",), lambda c, w, s: w.dtypes.compute != "fp16" or c["VEC"] <= 8
)
LOAD_RULE = Rule("a GPU loads 128 bits at most", ("VEC",), lambda c, w, s: s.kind == "cpu" or c["VEC"] <= 4)


def register_rule(*names: str) -> Rule:
    """Accumulators stay in registers."""
    return Rule("accumulators fit the registers", names, lambda c, w, s: registers(c, w) <= _register_limit(s))


CODE_RULE = Rule(
    "the unrolled loop stays small: UNROLL · BLOCKS · MT ≤ 32",  # beyond it PoCL compiles for seconds and nothing gains
    ("UNROLL", "BLOCKS", "MT"),
    lambda c, w, s: c["UNROLL"] * c["BLOCKS"] * c["MT"] <= 32,
)

WG_RULE = Rule("the work-group is allowed", ("WG",), lambda c, w, s: c["WG"] <= s.max_work_group)
STAGED_RULE = Rule(
    "the staged activations fit local memory",
    ("XLOCAL", "MT"),
    lambda c, w, s: local_bytes(c, w) <= s.local_bytes,
)
FLOAT_ONLY = Rule(
    "products are in floating point (the int8 policy has its own variant)",
    (),
    lambda c, w, s: w.dtypes.compute != "int8",
)
