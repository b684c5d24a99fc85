"""Small models and a profile with made-up stamps, so that tables and traces can be held against known numbers."""

from dataclasses import replace

from harness.clocks import Relation
from harness.probe import Limit, Rates
from harness.profile_nouns import Compile, Launched, Profile, Sample, Span, StepProfile
from harness.resident import Layers
from harness.step import Step, steps
from kernels.jobs import Ask
from kernels.models import Decoder, ModelSheet, Projector, Tower

DECODER = Decoder(
    hidden=256,
    inter=512,
    heads=4,
    kv_heads=1,
    head_dim=64,
    layers=3,
    vocab=384,
    gated=True,
    act="silu",
    norm="rms",
    rotary=64,
    rope="half",
    tied=False,
)
TOWER = Tower(
    name="image",
    hidden=128,
    inter=256,
    heads=2,
    head_dim=64,
    layers=3,
    skip_last=1,
    tokens=20,
    project=0,
    act="gelu",
    causal=False,
)
TINY = ModelSheet("tiny", "Tiny", "for tests", DECODER, (), None, {})
PLAIN = replace(TINY, name="plain", decoder=replace(DECODER, gated=False, norm="layer", kv_heads=2))
SEEING = replace(TINY, name="seeing", towers=(TOWER,), projector=Projector(20, ((256, 128), (256, 256))))
ENCODER = replace(TINY, name="encoder", decoder=None, towers=(replace(TOWER, skip_last=0, project=64),))
MODELS = (TINY, PLAIN, SEEING, ENCODER)
PROMPT, CONTEXT = 24, 32


def ask(prompt: int = PROMPT, weights: str = "int4/g128") -> Ask:
    return Ask((weights,), "fp16", "fp32", "fp16", (1, prompt), CONTEXT)


def tiny_steps() -> tuple[Step, ...]:
    return steps(TINY, ask())


ORIGIN_NS = 1_000_000
OFFSET_NS = 500_000_000  # of the made-up device's clock before the host's
RATES = Rates(10.0, 10.0, {"fp32": 100.0}, 50.0)


def made_up() -> Profile:
    """One decode step of two calls, a norm of 10 µs and a product of 30 µs in two launches with a gap of 5 µs.

    Two repeats; in the second everything takes twice as long. Each call's limit is 6 µs.
    """
    (step,) = (one for one in tiny_steps() if one.name == "decode")
    norm, q = step.calls[0], step.calls[1]
    launched = (
        Launched(norm, "rmsnorm", "rows", "rmsnorm", True),
        Launched(q, "gemv_decode", "split_k", "gemv_split", True),
        Launched(q, "gemv_decode", "split_k", "gemv_join", False),
    )
    limits = {call.workload.key: Limit(6000.0, "bandwidth") for call in (norm, q)}
    samples = tuple(_sample(repeat, repeat + 1) for repeat in (0, 1))
    walls = (100_000, 120_000)
    return Profile(
        device="paper",
        description={"name": "Paper tiger", "platform_name": "Paper", "driver_version": "1"},
        runner="paper runner",
        model="tiny",
        steps=(StepProfile(step, launched, limits, samples, walls),),
        chosen=(),
        layers={"decoder": Layers(2, 3, 1 << 20)},
        resident_bytes=3 << 20,
        compiles=(Compile("gemv_decode/split_k", "gemv_decode", ORIGIN_NS + 1000, 0.5, False),),
        spans=tuple(
            Span("token-eval", r, ORIGIN_NS + 1_000_000 * (r + 1), ORIGIN_NS + 1_000_000 * (r + 2)) for r in (0, 1)
        ),
        rates=RATES,
        clock={"clock": "CLOCK_MONOTONIC of the host", "method": "made up"},
        notes=("nothing here was measured",),
        start_ns=ORIGIN_NS,
        recording=None,
        recording_why="it was not asked for: --telemetry",
    )


def _sample(repeat: int, slow: int) -> Sample:
    begin = OFFSET_NS + ORIGIN_NS + 1_000_000 * (repeat + 1) + 50_000
    queued = [begin - 40_000 + 2000 * i for i in range(3)]
    starts, ends = (0, 15_000, 35_000), (10_000, 30_000, 50_000)
    stamps = tuple(
        (q, q + 1000, begin + slow * s, begin + slow * e) for q, s, e in zip(queued, starts, ends, strict=True)
    )
    host = tuple((q - OFFSET_NS - 300, q - OFFSET_NS + 700) for q in queued)
    return Sample(repeat, stamps, Relation(OFFSET_NS, 500, True), host)
