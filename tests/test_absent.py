"""A run without its device: it says so first, proves on a CPU, and writes a document of predictions alone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import kernels
import tuner.foreseen
from harness.candidate import Candidate
from harness.devices import Attached, DeviceChoice
from harness.errors import DeviceMissing, KilnError, UsageError
from harness.journal import Journal
from harness.runtimes import Runtimes
from kernels import tuned
from kernels.jobs import dtype_policy
from kernels.plan import Planned
from kernels.select import select
from kernels.space import layout_of
from kernels.spec import Errors, Tolerance, Verdict, Workload
from kernels.tuned import ProvenOn
from tuner import absent, foreseen
from tuner.absent import Claim, shortlist
from tuner.predict import MODEL_VERSION
from tuner.proofs import Proofs
from tuner.proving import Proof, Refusal
from tuner.request import Request

POLICY = dtype_policy("fp16", "fp32", "int4/g128")
CLAIM = Claim.of("adreno750")


def matrix(family: str, rows: int) -> Planned:
    job = Workload(family, {"M": rows, "N": 2048, "K": 2048}, POLICY, "int4/g128", label=f"rows {rows}")
    return Planned(job, 18, 2048 * 1024, 0.25)


PLANNED = [matrix("gemv_decode", 1), matrix("gemv_decode", 4), matrix("gemm_prefill", 4), matrix("gemm_prefill", 128)]


class FakeProver:
    """Believes what it is told to."""

    def __init__(self, believes: Callable[[Candidate], bool] = lambda candidate: True) -> None:
        self.believes = believes
        self.asked: list[Candidate] = []

    def able(self, candidate: Candidate) -> bool:
        return True

    def prove(self, candidate: Candidate) -> Proof | Refusal:
        self.asked.append(candidate)
        if not self.believes(candidate):
            return Refusal(Verdict.BUILD_FAILED, "no")
        errors = Errors(1e-8, 1e-4, Tolerance(1e-6, 1e-2), ("M=1 N=16 K=2048",))
        return Proof(errors, ProvenOn("fake cpu", "emulated", None))

    def __enter__(self) -> "FakeProver":
        return self

    def __exit__(self, *error: object) -> None:
        pass


def one_candidate() -> Candidate:
    family, workload = kernels.families()["rmsnorm"], NORMS[0].workload
    return Candidate(family, workload, family.default(workload, CLAIM.sheet))


def request(out: Path | None = None, **more: object) -> Request:
    asked = Request(
        "adreno750", ("small",), ("gemv_decode",), ("int4/g128",), "fp16", "fp32", "fp16", 9.0, out, 0, "kiln", False
    )
    return replace(asked, **more)  # type: ignore[arg-type]


NORMS = [
    Planned(
        Workload("rmsnorm", {"M": rows, "N": 2048}, dtype_policy("fp16", "fp32", None), None, {"norm": "rms"}), 1, 1, 1
    )
    for rows in (1, 7)
]


def foresee(prover: FakeProver, said: list[str], planned: Sequence[Planned] = tuple(NORMS)) -> list[absent.Foreseen]:
    return absent.foresee(request(), CLAIM, planned, prover, said.append)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found() -> list[absent.Foreseen]:
    return foresee(FakeProver(), [], PLANNED)


def test_every_workload_gets_a_winner_in_one_common_layout(found: list[absent.Foreseen]) -> None:
    assert [one.workload for one in found] == [item.workload for item in PLANNED]
    layouts = {
        layout_of(one.candidate(ranked).variant, ranked.config, one.workload)
        for one in found
        for ranked, _ in one.chosen
    }
    assert len(layouts) == 1
    for one in found:
        assert len(one.chosen) == 1 + absent.ALTERNATES
        assert one.chosen[0][0].cost_ns == min(ranked.cost_ns for ranked, _ in one.chosen)
        assert one.chosen[0][0].cost_ns <= one.default.cost_ns


def test_what_is_not_proven_is_not_emitted() -> None:
    said: list[str] = []
    prover = FakeProver(lambda candidate: candidate.workload.dims["M"] != 7)
    found = foresee(prover, said)
    assert {one.workload.dims["M"] for one in found} == {1}
    assert any("is left out" in line for line in said)
    assert any("is not proven: build_failed" in line for line in said)
    with pytest.raises(KilnError, match="could execute any candidate"):
        foresee(FakeProver(lambda candidate: False), said)


def test_a_variant_that_fails_is_given_up() -> None:
    prover = FakeProver(lambda candidate: candidate.variant.name == "split_row")
    foresee(prover, [], NORMS[:1])
    failed = [c.variant.name for c in prover.asked if not prover.believes(c)]
    assert failed
    assert max(map(failed.count, failed)) <= absent.FAILURES


def test_the_document_predicts_and_measures_nothing(found: list[absent.Foreseen], tmp_path: Path) -> None:
    config = foreseen.document(request(), CLAIM, found, ["cpu-fake"])
    tuned.write(tmp_path / "a.json", config)
    back = tuned.load(tmp_path / "a.json")
    assert back.evidence == "predicted"
    assert back.device.model == "adreno-750"
    for section in back.kernels.values():
        for entry in section.entries:
            assert entry.stats is None
            assert entry.prediction is not None
            assert entry.prediction.model_version == MODEL_VERSION
            assert entry.verification is not None
            assert entry.verification.proven_on.device == "fake cpu"
    gemv, gemm = back.ops["matmul"]
    assert (gemv.kernel, gemm.kernel) == ("gemv_decode", "gemm_prefill")
    assert gemv.bucket["M"][1] == (gemm.bucket["M"][0] or 0) - 1


def test_an_engine_loads_it_only_when_it_asks_to(found: list[absent.Foreseen]) -> None:
    config = foreseen.document(request(), CLAIM, found, ["cpu-fake"])
    family, workload = kernels.families()["gemv_decode"], PLANNED[0].workload
    assert select([config], workload, CLAIM.facts, family, predicted=True).entry.evidence == "predicted"
    assert select([config], workload, CLAIM.facts, family).entry.evidence == "built-in"


def test_the_same_request_gives_the_same_document() -> None:
    one, other = (
        tuned.dumps(foreseen.document(request(), CLAIM, foresee(FakeProver(), []), ["cpu-fake"])) for _ in range(2)
    )
    assert one == other


def test_the_shortlist_holds_the_default_and_only_what_is_able() -> None:
    family, workload = kernels.families()["gemv_decode"], PLANNED[0].workload
    space = kernels.space.Space(family, workload, CLAIM.sheet)
    default = family.default(workload, CLAIM.sheet)
    listed = shortlist(space, default, CLAIM.peaks, lambda config: config["variant"] == "panel")
    assert {one.config["variant"] for one in listed} <= {"panel", default["variant"]}
    assert sum(dict(one.config) == dict(default) for one in listed) == 1
    assert [one.cost_ns for one in listed] == sorted(one.cost_ns for one in listed)


@pytest.mark.parametrize(
    "option", [{"storage": "journal:x"}, {"objectives": ("time",)}, {"max_programs": 2}, {"priority": "low"}]
)
def test_what_needs_the_device_is_wrong_usage(option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="needs the device itself"):
        absent.check(request(**option))


def test_without_any_opencl_the_device_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> DeviceChoice:
        raise DeviceMissing("no OpenCL device on this machine")

    monkeypatch.setattr(absent, "resolve", nothing)
    monkeypatch.setattr(absent, "list_devices", lambda: Attached((), Runtimes((), ())))
    with pytest.raises(DeviceMissing):
        absent.missing(request())
    assert absent.missing(request(device="cpu")) is None


def test_the_first_line_says_what_is_not_there(
    device: DeviceChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device.sheet.kind != "cpu":
        pytest.skip("candidates are proven on CPUs")
    monkeypatch.setattr(absent, "hosts", lambda attached: [device])
    monkeypatch.setattr(tuner.foreseen, "planned_of", lambda *_: NORMS[:1])
    said: list[str] = []
    found = foreseen.tune(request(tmp_path / "a.json", seconds=1.0), "no Adreno 750 is attached", said.append)
    assert said[0].startswith("no Adreno 750 is attached: candidates for Adreno 750 are proven on")
    assert "--require-device" in said[0]
    assert json.loads((tmp_path / "a.json").read_text())["evidence"] == "predicted"
    assert "nobody has measured them" in foreseen.summary(found)
    assert foreseen.rows(found)[0]["proven_on"]


def test_a_proof_is_made_once(device: DeviceChoice, tmp_path: Path) -> None:
    path, asked = tmp_path / "a.journal.jsonl", []
    whole: list[list[absent.Foreseen]] = []
    for round_ in range(2):
        prover = FakeProver(lambda candidate: candidate.workload.dims["M"] != 7)
        with Journal(path) as journal:
            proofs = Proofs(prover, journal, CLAIM.sheet, [device])
            whole.append(absent.foresee(request(), CLAIM, NORMS, proofs, lambda text: None))
        asked.append(len(prover.asked))
        if round_ == 0:
            path.write_bytes(path.read_bytes()[:-5])  # a power loss tears the last line
    assert asked[0] > 1
    assert asked[1] == 1
    assert [one.chosen for one in whole[0]] == [one.chosen for one in whole[1]]


def test_a_proof_holds_for_what_it_was_made_with(device: DeviceChoice, tmp_path: Path) -> None:
    smaller = replace(CLAIM.sheet, local_bytes=CLAIM.sheet.local_bytes // 2)
    lost, candidate = FakeProver(lambda candidate: False), one_candidate()
    with Journal(tmp_path / "a.jsonl") as journal:
        first = Proofs(lost, journal, CLAIM.sheet, [device])
        assert first.prove(candidate) == first.prove(candidate)
        assert len(lost.asked) == 1
        for sheet, hosts in ((smaller, [device]), (CLAIM.sheet, []), (CLAIM.sheet, [device])):
            Proofs(lost, journal, sheet, hosts).prove(candidate)
        assert len(lost.asked) == 3


@pytest.mark.parametrize(("verdict", "again"), [(Verdict.CRASHED, 1), (Verdict.WRONG_RESULT, 0)])
def test_crashes_are_tried_again_when_asked_for(
    verdict: Verdict, again: int, device: DeviceChoice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prover = FakeProver()
    monkeypatch.setattr(prover, "prove", lambda candidate: Refusal(verdict, "why"))
    with Journal(tmp_path / "a.jsonl") as journal:
        Proofs(prover, journal, CLAIM.sheet, [device]).prove(one_candidate())
        fresh = FakeProver()
        Proofs(fresh, journal, CLAIM.sheet, [device], retry_crashed=True).prove(one_candidate())
        assert len(fresh.asked) == again
        Proofs(fresh, journal, CLAIM.sheet, [device]).prove(one_candidate())
        assert len(fresh.asked) == again
