"""`python -m tuner predict`: a model's forecast on a device, beside what was published, and how far to believe it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import kernels
from harness.errors import UsageError
from harness.tables import MISSING, json_text, say, table, time_text
from kernels.jobs import GEMV_ROWS, dtype_policy
from kernels.models import load_model, model_names
from kernels.published import FIGURES, TABLE_1, Published
from kernels.sheet import sheet_names
from kernels.space import Space
from kernels.spec import WeightFormat, Workload
from tuner.absent import Claim
from tuner.forecast import (
    ENGINE,
    FITTED_ON,
    FITTED_PROMPT,
    FITTED_WEIGHTS,
    Phase,
    Replay,
    ask_for,
    ask_like_the_paper,
    fit,
    kiln_times,
    phases,
    roofline_ns,
)
from tuner.predict import MODEL_VERSION, rank

# Why the replay and the paper are likely to differ: read from shapes and counts, proven by nothing.
_WHY = {
    ("gemma-2b", "prefill"): "fitted on it",
    ("gemma-2b", "decode"): "fitted on it",
    ("chatglm2-6b", "prefill"): "its matrices are up to twice as wide: fewer of them leave compute units idle",
    ("chatglm2-6b", "decode"): "launches and small kernels weigh less beside 2.4 times the bytes a token",
    ("clip-vit-b-32", "image"): "50 rows do not fill a device that 128 do, and its launches are short",
    ("clip-vit-b-32", "text"): "77 rows of 512 columns do not fill a device, and its launches are short",
}
_WHY_GEMV = "a GEMV alone, without the attention, norms and gaps between launches of a whole token"


@dataclass(frozen=True)
class Judged:
    """A published figure beside what the columns say of it."""

    what: str
    published_ns: float
    roofline_ns: float
    kiln_ns: float | None
    replay_ns: float | None
    why: str

    @property
    def deviation(self) -> float | None:
        """By what fraction the replay is slower (+) or faster (−) than what was published."""
        return None if self.replay_ns is None else self.replay_ns / self.published_ns - 1


def judged(replay: Replay) -> list[Judged]:
    """The replay against everything of its engine and device that it was and was not fitted on."""
    peaks = Claim.of(replay.device).peaks
    found = []
    for figure in FIGURES:
        if (figure.engine, figure.device) != (ENGINE, replay.device):
            continue
        ask = ask_like_the_paper(figure.prompt or FITTED_PROMPT)
        phase = next(p for p in phases(load_model(figure.model), ask, peaks) if p.name == figure.phase)
        rows = f", {figure.prompt} tokens" if figure.prompt else ""
        why = _WHY.get((figure.model, figure.phase), "")
        what = f"{figure.model} {figure.phase}{rows}"
        found.append(Judged(what, figure.ns, phase.roofline_ns, None, replay.ns(phase), why))
    return found + (_judged_gemvs(replay) if replay.device == "adreno750" else [])


def _judged_gemvs(replay: Replay) -> list[Judged]:
    claim, family, found = Claim.of(replay.device), kernels.families()["gemv_decode"], []
    for row in (one for one in TABLE_1 if one.device == replay.device):
        policy = dtype_policy("fp16", "fp16", FITTED_WEIGHTS)
        workload = Workload("gemv_decode", {"M": 1, "N": row.N, "K": row.K}, policy, FITTED_WEIGHTS)
        space = Space(family, workload, claim.sheet)
        least = roofline_ns(workload, claim.peaks)
        best = next(iter(rank(family, workload, space.configs(), claim.sheet, claim.peaks)))[0]
        what = f"GEMV {row.K}×{row.N}, table 1"
        found.append(Judged(what, row.int4_ns, least, best.ns, replay.of_roofline("decode", least), _WHY_GEMV))
    return found


# ---------------------------------------------------------------- for people


def phase_text(phase: Phase, replay: Replay, published: Sequence[Published]) -> str:
    """One pass: its families, its sum, its speed, and what was published of it."""
    replayed = replay.ns(phase)
    part = None if replayed is None else phase.roofline_ns / replayed

    def line(name: str, calls: str, flops: float, size: float, *times: float | None) -> list[str]:
        return [name, calls, f"{flops / 1e9:.3g}", f"{size / 1e6:.3g}", *(time_text(ns) for ns in times)]

    rows = [
        line(p.family, str(p.calls), p.flops, p.bytes, p.roofline_ns, p.kiln_ns, p.roofline_ns / part if part else None)
        for p in phase.parts
    ]
    totals = (phase.roofline_ns, phase.kiln_ns, replayed)
    calls = str(sum(p.calls for p in phase.parts))
    rows.append(line("all", calls, sum(p.flops for p in phase.parts), sum(p.bytes for p in phase.parts), *totals))
    if phase.tokens:
        rows.append(["tokens/s", "", "", "", *(_speed(phase.tokens_per_s(ns)) for ns in totals)])
    heads = ["", "calls", "GFLOP", "MB", "roofline limit", "Kiln, predicted", f"{ENGINE}, replayed"]
    lines = [phase.about, table(heads, rows)]
    lines += [f"published: {_published(figure)}" for figure in published if figure.phase == phase.name]
    return "\n".join(lines)


def _speed(tokens_per_s: float | None) -> str:
    return MISSING if tokens_per_s is None else f"{tokens_per_s:.3g}"


def _published(figure: Published) -> str:
    speed = f" = {figure.tokens_per_s:.3g} tokens/s" if figure.tokens_per_s else ""
    prompt = f" at {figure.prompt} tokens" if figure.prompt else ""
    return f"{time_text(figure.ns)}{speed}{prompt}, {figure.engine} on {figure.device} ({figure.where})"


def judged_text(found: Sequence[Judged]) -> str:
    """The table of what the replay is believed by."""
    rows = [
        [
            one.what,
            time_text(one.published_ns),
            time_text(one.roofline_ns),
            time_text(one.kiln_ns),
            time_text(one.replay_ns),
            MISSING if one.deviation is None else f"{100 * one.deviation:+.0f} %",
        ]
        for one in found
    ]
    heads = ["", "published", "roofline limit", "Kiln, predicted", "replayed", "off by"]
    why = {one.why: [other.what for other in found if other.why == one.why] for one in found if one.why}
    return "\n".join([table(heads, rows), *(f"{'; '.join(names)}: {reason}" for reason, names in why.items())])


def _notes(claim: Claim, replay: Replay) -> list[str]:
    def part(value: float | None) -> str:
        return "of which nothing was published" if value is None else f"{100 * value:.0f} % of the roofline"

    fitted = f"{ENGINE} reached {part(replay.many_rows)} in the prefill of {FITTED_ON} at {FITTED_PROMPT} tokens and"
    peaks = claim.peaks
    rates = ", ".join(f"{rate / 1e3:.3g} TFLOPS {name}" for name, rate in peaks.flops_per_ns.items())
    return [
        f"{claim.title}: {peaks.read_per_ns:.3g} GB/s, {rates} (its sheet); nothing here was measured on it.",
        f"{fitted} {part(replay.decode)} in decoding, on {Claim.of(replay.device).title}: the replay keeps to these.",
        f"Kiln's own times are {MODEL_VERSION}'s, of its best configurations in common layouts, without gaps between "
        "launches.",
        "Embedding, sampling and the host's work are in no column.",
    ]


# ---------------------------------------------------------------- the command


def main(words: Sequence[str]) -> None:
    """The command. Raises UsageError and KilnError."""
    parser = argparse.ArgumentParser(
        prog="python -m tuner predict",
        description="Forecast a model's speed on a GPU that need not be here: roofline, Kiln, Transformer-Lite.",
    )
    add = parser.add_argument
    add("--device", required=True, metavar="D", help="a device sheet, e.g. adreno750")
    add("--model", required=True, metavar="M", help="a model sheet, e.g. chatglm2-6b")
    add("--prompt", type=int, default=1024, metavar="N", help="tokens of the prefill (default %(default)s)")
    add("--context", type=int, metavar="N", help="positions cached when a token is decoded (default: the prompt's)")
    add("--weights", default=FITTED_WEIGHTS, metavar="F", help="weight format (default %(default)s)")
    add("--compute", default="fp16", choices=("fp32", "fp16", "int8"), help="arithmetic (default %(default)s)")
    add("--cache", default="fp16", choices=("fp16", "int8", "int4"), help="storage of the KV cache (default fp16)")
    add("--json", action="store_true", help="the same as JSON")
    args = parser.parse_args(words)
    _check(args)
    claim, sheet = Claim.of(args.device), load_model(args.model)
    ask = ask_for(args.prompt, args.context or args.prompt, args.weights, args.compute, args.cache)
    found = phases(sheet, ask, claim.peaks, kiln_times(sheet, ask, claim))
    replay = fit(claim.name, claim.peaks)
    published = [figure for figure in FIGURES if figure.model == sheet.name]
    if args.json:
        say(json_text(_as_json(claim, found, replay, published)))
        return
    parts = [phase_text(phase, replay, published) for phase in found]
    heading = f"{ENGINE} on {Claim.of(replay.device).title}, replayed and published; reasons are likely ones"
    parts.append(f"{heading}\n{judged_text(judged(replay))}")
    say("\n\n".join([f"{sheet.title} on {claim.title}", *parts, "\n".join(_notes(claim, replay))]))


def _check(args: argparse.Namespace) -> None:
    if args.device not in sheet_names():
        raise UsageError(f'there is no sheet of "{args.device}"; choose from {", ".join(sheet_names())}')
    if args.model not in model_names():
        raise UsageError(f'unknown model "{args.model}"; choose from {", ".join(model_names())}')
    try:
        WeightFormat.parse(args.weights)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if args.prompt <= GEMV_ROWS:
        raise UsageError(
            f"--prompt must be above {GEMV_ROWS}, for fewer rows are decoding's kernels, not {args.prompt}"
        )
    if args.context is not None and args.context < 1:
        raise UsageError(f"--context must be at least 1, not {args.context}")


def _as_json(claim: Claim, found: Sequence[Phase], replay: Replay, published: Sequence[Published]) -> dict[str, Any]:
    return {
        "device": claim.name,
        "cost_model": MODEL_VERSION,
        "replay": asdict(replay),
        "phases": [
            {
                **asdict(phase),
                "roofline_ns": phase.roofline_ns,
                "kiln_ns": phase.kiln_ns,
                "replay_ns": replay.ns(phase),
            }
            for phase in found
        ],
        "published": [asdict(figure) for figure in published],
        "judged": [{**asdict(one), "deviation": one.deviation} for one in judged(replay)],
    }
