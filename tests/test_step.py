"""harness/step.py: a step has the jobs that the plan has, as often, wired to each other."""

from collections import Counter

import pytest
from profiles import CONTEXT, ENCODER, MODELS, PROMPT, SEEING, TINY, ask, tiny_steps

import kernels
from harness.step import Step, steps
from kernels.models import ModelSheet, load_model, model_names


def planned(sheet: ModelSheet, phase: str, prompt: int) -> Counter[str]:
    jobs = [job for family in kernels.families().values() for job in family.jobs(sheet, ask(prompt))[0]]
    found: Counter[str] = Counter()
    for job in jobs:
        if job.phase == phase:
            found[f"{job.workload.family} {job.workload.label}"] += job.count
    return found


def counted(step: Step) -> Counter[str]:
    return Counter(f"{call.workload.family} {call.workload.label}" for call in step.calls)


@pytest.mark.parametrize("prompt", [2, 16, 17, 128])
@pytest.mark.parametrize("sheet", [*MODELS, *map(load_model, model_names())], ids=lambda sheet: sheet.name)
def test_a_step_runs_every_planned_job_as_often_as_planned(sheet: ModelSheet, prompt: int) -> None:
    for step in steps(sheet, ask(prompt)):
        phase = {"decode": "decode", "prefill": f"prefill {prompt}"}.get(step.name, f"tower {step.part}")
        want = planned(sheet, phase, prompt)
        if step.name == "prefill":
            want[f"gemv_decode {sheet.name} lm_head"] = 1  # the prompt's last row is projected as a token's is
        assert counted(step) == want


def test_a_tiny_decoder_is_spelled_out() -> None:
    prefill, decode = tiny_steps()
    layer = ["attention norm", "q", "kv", "concat", "attention", "o", "feed-forward norm"]
    assert [call.name for call in decode.calls] == 3 * [*layer, "gate", "up", "down"] + ["last norm", "lm_head"]
    assert [call.name for call in prefill.calls] == 3 * [*layer, "gate/up", "down"] + ["last norm", "lm_head"]
    assert (prefill.phase, prefill.tokens, decode.phase, decode.tokens) == ("prompt-eval", PROMPT, "token-eval", 1)
    assert decode.calls[10].label == "layer 1 attention norm"
    assert decode.calls[-1].label == "lm_head"


def test_steps_come_in_the_order_of_a_query() -> None:
    assert [step.name for step in steps(SEEING, ask())] == ["image encoder", "prefill", "decode"]
    encoder = steps(SEEING, ask())[0]
    assert (encoder.phase, encoder.layers) == ("slice-encode", 2), "the last layer's output is not read"
    assert [call.name for call in encoder.calls[-2:]] == ["projector 1", "projector 2"]
    (alone,) = steps(ENCODER, ask())
    assert [call.name for call in alone.calls[-2:]] == ["last norm", "projection"]


def test_what_a_call_reads_was_written_before_it() -> None:
    """The embeddings, tables, positions, weights and caches apart, which are there from the start."""
    for sheet in MODELS:
        for step in steps(sheet, ask()):
            written = {"x"}
            for call in step.calls:
                abi = kernels.families()[call.workload.family].abi
                for argument, view in call.wires.items():
                    role = next(arg.role for arg in abi.args if arg.name == argument)
                    kept = view.tensor.startswith("cache.") or role == "weight"
                    if role in ("input", "inout") and not kept:
                        assert view.tensor in written, (sheet.name, step.name, call.label, argument)
                results = [arg.name for arg in abi.args if arg.role in ("output", "inout")]
                written |= {call.view(name).tensor for name in results}


def test_no_call_writes_what_it_reads() -> None:
    """Kernels take their buffers as restrict, in-place ones apart."""
    for sheet in MODELS:
        for step in steps(sheet, ask()):
            for call in step.calls:
                abi = kernels.families()[call.workload.family].abi
                read, written = (
                    {call.view(a).tensor for a in abi.names(r) if a in call.wires} for r in ("input", "output")
                )
                assert not read & written, call.label


def test_attention_reads_the_cache_that_the_concat_wrote() -> None:
    for step in tiny_steps():
        concat, attention = step.calls[3], step.calls[4]
        for name in ("k", "v"):
            assert concat.view(name) == attention.view(name)
        assert concat.workload.dims["S"] == attention.workload.dims["S"] == CONTEXT
        assert attention.workload.dims["T"] == (CONTEXT if step.name == "decode" else PROMPT)
        assert concat.view("k_new").offset == 0
        assert concat.view("v_new").offset == step.calls[3].workload.dims["M"] * 64 * 2


def test_gate_and_up_are_the_same_weights_in_both_steps() -> None:
    prefill, decode = tiny_steps()
    both = next(call for call in prefill.calls if call.name == "gate/up")
    gate, up = (next(call for call in decode.calls if call.name == name) for name in ("gate", "up"))
    assert (both.view("w"), both.view("sb")) == (gate.view("w"), gate.view("sb"))
    assert (both.view("w_up"), both.view("sb_up")) == (up.view("w"), up.view("sb"))


def test_a_job_without_a_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that gives one more job must be given its place, or steps would look faster than they are."""
    found = kernels.families()["rmsnorm"].jobs(TINY, ask())[0]
    stranger = [job for job in found if job.phase == "decode"][:1]
    monkeypatch.setattr("harness.step._Wiring._norm", lambda self, name, layer: None)
    assert stranger
    with pytest.raises(ValueError, match="no place in a step is known for rmsnorm first norm, rmsnorm norm"):
        steps(TINY, ask())
