"""harness/profiling.py on every device here: a tiny model's steps really run, and their stamps are believable."""

import numpy as np
import pytest
from profiles import CONTEXT, PROMPT, TINY, tiny_steps
from test_trace import check_events

import kernels
from harness import profile_text, profiling, stepping, trace
from harness.devices import DeviceChoice
from harness.errors import KilnError
from harness.probe import ProbeResult, Rate
from harness.probe_kernels import ProbeKernel
from harness.profile_nouns import Profile
from harness.profiling import profile
from harness.supervisor import Supervisor
from kernels.entry import built_in_entry
from kernels.select import Level, Selection
from kernels.spec import Measurement, Verdict

READ = Rate(40.0, (39.0, 41.0), ProbeKernel("read_own", width=8, items=64, amount=64))
COPY = Rate(40.0, (39.0, 41.0), ProbeKernel("copy_own", width=8, items=64, amount=64))
MADD = Rate(40.0, (39.0, 41.0), ProbeKernel("madd", width=8, items=64, amount=256))
PROBED = ProbeResult(READ, COPY, {"fp32": MADD}, 200.0, 2000.0, 1, 180, True, ())


@pytest.fixture(scope="module")
def found(device: DeviceChoice) -> Profile:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profiling, "probe", lambda supervisor, sheet: PROBED)
        patch.setattr(stepping, "REPEAT_NS", 1)  # one step a repeat
        return profile(device, TINY.name, tiny_steps(), [], repeats=2)


def test_every_launch_of_every_step_has_its_stamps(found: Profile) -> None:
    assert [one.step.name for one in found.steps] == ["prefill", "decode"]
    for one in found.steps:
        assert {launched.call.label for launched in one.launched} == {call.label for call in one.step.calls}
        assert [sample.repeat for sample in one.samples] == [0, 1]
        for sample in one.samples:
            stamps = np.array(sample.stamps_ns)
            assert stamps.shape == (len(one.launched), 4)
            assert (stamps[:, 3] >= stamps[:, 2]).all()
            assert (np.diff(stamps[:, 2]) >= 0).all(), "launches of one queue start in its order"
        assert len(one.wall_ns) == 2
        assert min(one.wall_ns) > 0


def test_stamps_lie_within_their_phase(found: Profile) -> None:
    spans = {(span.name, span.repeat): span for span in found.spans}
    phases = {("load", 0), *((p, r) for p in ("prompt-eval", "token-eval") for r in (0, 1))}
    assert set(spans) == phases | {(f"warm-up: {one.step.name}", 0) for one in found.steps}
    for one in found.steps:
        for sample in one.samples:
            span, slack = spans[one.step.phase, sample.repeat], sample.clock.uncertainty_ns
            assert span.start_ns - slack <= sample.clock.host_ns(sample.stamps_ns[0][0])
            assert sample.clock.host_ns(sample.stamps_ns[-1][3]) <= span.end_ns + slack


def test_shapes_and_kernels_are_the_models(found: Profile) -> None:
    assert found.layers["decoder"].resident == found.layers["decoder"].of == 3
    cached = {
        (one.workload.dims["M"], one.workload.dims["T"]) for one in found.chosen if "attention" in one.workload.label
    }
    assert {(PROMPT, PROMPT), (1, CONTEXT)} <= cached
    assert all(one.level is Level.BUILT_IN for one in found.chosen)
    assert {one.family for one in found.compiles} == {one.workload.family for one in found.chosen}
    assert all(one.build_ms > 0 for one in found.compiles)


def test_it_can_be_printed_and_traced(found: Profile) -> None:
    check_events(trace.to_json(found)["traceEvents"])
    told = profile_text.text(found)
    assert "prefill: 24 tokens (prompt-eval)" in told
    assert "decoder: 3 of 3 layers have weights" in told
    assert len(profile_text.to_json(found)["steps"]) == 2


def test_a_job_that_computes_nonsense_stops_the_profile(device: DeviceChoice, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Measurement.failed(Verdict.WRONG_RESULT, "at M=1")
    monkeypatch.setattr(profiling, "probe", lambda supervisor, sheet: PROBED)
    monkeypatch.setattr(profiling, "check", lambda bench, candidate: wrong)
    with pytest.raises(KilnError, match=r"tiny first norm on .*: wrong_result at M=1"):
        profile(device, TINY.name, tiny_steps(), [], repeats=1)


def test_an_entry_that_fails_here_gives_way_to_the_default(
    device: DeviceChoice, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = tiny_steps()[1].calls[0].workload
    family = kernels.families()[workload.family]
    tuned = Selection(built_in_entry(family, workload, device.sheet), Level.STALE, "its bucket holds the sizes", ())
    verdicts = iter([Measurement.failed(Verdict.WRONG_RESULT, "at M=1 N=256"), None])
    monkeypatch.setattr(profiling, "select", lambda *words: tuned)
    monkeypatch.setattr(profiling, "check", lambda bench, candidate: next(verdicts))
    journal = profiling._Journal(None)
    session = profiling._Session(device, supervisor, journal, tiny_steps(), [], 1, lambda done, of: None)
    chosen = session._choose(workload)
    assert (chosen.level, chosen.entry) == (Level.BUILT_IN, "built-in")
    (note,) = journal.notes
    assert note == ("tiny first norm: entry built-in is wrong_result here, its family's default runs: at M=1 N=256"), (
        "what an engine would have got is named, and why it did not run"
    )
