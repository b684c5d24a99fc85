"""Finals of what a document holds, and what they say of it.

An entry is kept, changed (another configuration wins) or suspicious: its winner does not build or is wrong, or its
time, as a multiple of the limit that the anchors showed, has moved by more than FAR outside both intervals. Then its
neighbourhood may have moved as well, and only a whole run can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from harness.contest import Contest
from harness.journal import PROTOCOL, same_device
from harness.probe import ProbeResult, probe
from harness.records import Record
from harness.supervisor import Supervisor
from harness.timing import paired_ratio, stats
from kernels.plan import Planned
from kernels.space import Space
from kernels.spec import Verdict
from kernels.tuned import TunedConfig
from tuner.closing import Closing, DefaultFailed
from tuner.decisions import Decision, workload_of
from tuner.finals import Final
from tuner.setting import Job, Setting
from tuner.veterans import Veteran

FAR = 1.25  # beyond both intervals: a time that moved so much, against the limit, did not move by chance
BUDGET_S = 10.0  # of rounds, for one entry
NOTE, ENDED = "delta", "retuned"  # the journal's notes of an entry and of the end


@dataclass(frozen=True)
class Finding:
    """What became of one entry."""

    veteran: Veteran
    state: str  # keep, changed, suspicious
    why: str
    decision: Decision | None  # None: not even the default works any more


class Delta(Closing):
    """The closing steps of a study whose finalists come from a document."""

    def __init__(
        self,
        setting: Setting,
        supervisor: Supervisor,
        document: TunedConfig,
        past: Sequence[Record],
        digest: str,
        top: int,
    ) -> None:
        """Go on with an interrupted one of this document on this driver, or write a new one down."""
        super().__init__(setting, _anchors(setting, past) or probe(supervisor, setting.device.sheet), ())
        self._device = setting.device
        self._told: Mapping[str, float] = document.protocol.get("probe", {})
        of = {"of": digest, "top": top}
        self._since = len(self._journal.records)
        for place, record in enumerate(self._journal.records):
            if record["kind"] == "study":
                same = same_device(record["device"], self._device.description)
                self._since = place if same and record.get("retune") == of else len(self._journal.records)
            elif record["kind"] == "note" and record["text"] == ENDED:
                self._since = len(self._journal.records)
        if self._since < len(self._journal.records):
            self._say(f"resuming {self._journal.path}: what was measured again there is not repeated")
            return
        self._journal.study(
            request=setting.request.as_json(),
            device=dict(self._device.description),
            probe=self._probe.to_json(),
            rates=self._probe.headline(),
            protocol=f"kiln-{PROTOCOL}",
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            retune=of,
        )

    def slower(self, veteran: Veteran, final: Final) -> float:
        """How many times as long arithmetic takes now as when the document was made; 1 where that is not known."""
        compute = final.default.candidate.workload.dtypes.compute
        seen = self._rates(compute, final.facts["anchors_ns"])
        before = {**self._told, **self._rates(compute, veteran.anchors_ns)}
        return next((before[name] / seen[name] for name in seen if name.endswith("flops") and before.get(name)), 1.0)

    def _rates(self, compute: str, anchors_ns: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """What the anchors reached in one final, as `ProbeResult.headline` names it."""
        name = compute if compute in self._probe.madd else "fp32"
        kernels = {
            "read": ("read_gb_per_s", self._probe.read.kernel),
            "madd": (f"{name}_gflops", self._probe.madd[name].kernel),
        }
        return {
            called: float(kernel.work / np.median(anchors_ns[anchor]))
            for anchor, (called, kernel) in kernels.items()
            if anchors_ns.get(anchor)
        }

    def rates(self) -> dict[str, float]:
        """The headline of the old probe, with what its anchors reach now: medians over all finals of this study."""
        seen: dict[str, list[float]] = {}
        for record in self.finals_of_this():
            found = self._rates(record["workload"]["dtypes"]["compute"], record["facts"]["anchors_ns"])
            for name, rate in found.items():
                seen.setdefault(name, []).append(rate)
        return {**self._probe.headline(), **{name: float(np.median(rates)) for name, rates in seen.items()}}

    def finals_of_this(self) -> list[Record]:
        """What this study has measured so far."""
        return [record for record in self._journal.records[self._since :] if record["kind"] == "final"]

    def measure(self, veteran: Veteran) -> str:
        """Hold the finals of one entry again, unless that was done; what is wrong with its winner, "" = nothing."""
        for record in self._journal.records[self._since :]:
            if record["kind"] == "note" and record["text"] == NOTE and record["entry"] == veteran.entry.id:
                return str(record["lost"])
        for record in self.finals_of_this():  # interrupted before the note
            if workload_of(record["workload"]).key == veteran.workload.key:
                who = dict(veteran.winner.config), veteran.winner.driver_local
                alive = any((item["config"], item["driver_local"]) == who for item in record["finalists"])
                return veteran.why_not or ("" if alive else "its winner failed before this run was interrupted")
        self._say(f"again: {veteran.workload.label or veteran.entry.id}")
        planned = Planned(veteran.workload, veteran.calls, 0, 0.0)
        space = Space(veteran.default.family, veteran.workload, self._device.sheet)
        try:
            job = Job(planned, space, veteran.default.config, 0.0)
            contest = self._final(job, veteran.candidates, BUDGET_S, stay=(veteran.winner,))
            lost = veteran.why_not or self._why_lost(veteran, contest)
        except DefaultFailed as failure:
            lost = str(failure)
        self._journal.note(NOTE, entry=veteran.entry.id, lost=lost)
        return lost

    def _why_lost(self, veteran: Veteran, contest: Contest) -> str:
        for contestant in contest.contestants:
            if contestant.candidate == veteran.winner and contestant.measurement.verdict is not Verdict.OK:
                log = contestant.measurement.log.strip().splitlines()
                return f"its winner ended as {contestant.measurement.verdict}" + (f": {log[0][:120]}" if log else "")
        return ""


def _anchors(setting: Setting, past: Sequence[Record]) -> ProbeResult | None:
    """The probe that the document's limits came from: its kernels are the anchors, timed again in every contest."""
    for record in (*reversed(past), *reversed(setting.journal.records)):
        if record["kind"] == "study" and record["device"].get("name") == setting.device.description["name"]:
            return ProbeResult.from_json(record["probe"])
    setting.say("probing the device's limits")
    return None


def judge(veteran: Veteran, lost: str, decision: Decision | None, slower: Callable[[Veteran, Final], float]) -> Finding:
    """What became of an entry. `lost` is what is wrong with its winner; `slower` tells how much arithmetic is."""
    if lost or decision is None:
        return Finding(veteran, "suspicious", lost or "its default does not work", decision)
    again = next(f for f in decision.final.finalists if f.candidate == veteran.winner)
    limit = decision.final.facts["limit"]
    limits_ns = [limit["ns"]]
    if limit["limited_by"] == "launch":
        # What is as short as a launch goes with an empty kernel, or with the clock, as arithmetic does, or with neither
        # on a busy host: what one of them explains is not the kernel's.
        before_ns = _limit_before_ns(veteran)
        limits_ns += [before_ns, before_ns * slower(veteran, decision.final)]
    moved = [_moved(veteran, again.samples_ns, limit_ns) for limit_ns in limits_ns]
    if all(moved):
        return Finding(veteran, "suspicious", moved[0], decision)
    winner = decision.winner.finalist
    if winner.candidate == veteran.winner:
        return Finding(veteran, "keep", "", decision)
    ratio = paired_ratio(winner.samples_ns, again.samples_ns)
    low, high = ratio.interval
    return Finding(veteran, "changed", f"{ratio.ratio:.2f}× as fast [{low:.2f}, {high:.2f}]", decision)


def _limit_before_ns(veteran: Veteran) -> float:
    """The limit that the document was made with, 0 where it does not tell."""
    before = veteran.entry.stats
    return before.percent_of_limit / 100 * before.median_ns if before and before.percent_of_limit else 0.0


def _moved(veteran: Veteran, samples_ns: Sequence[float], limit_ns: float) -> str:
    """How far the time, as a multiple of the limit, has moved beyond both intervals; "" where it has not."""
    before, now = veteran.entry.stats, stats(samples_ns)
    limit_before_ns = _limit_before_ns(veteran)
    if before is None or not limit_before_ns:
        return ""
    (was_low, was_high), (low, high) = before.interval_ns, now.interval_ns
    scale = limit_before_ns / limit_ns
    ratio, least, most = scale * now.median_ns / before.median_ns, scale * low / was_high, scale * high / was_low
    if least > FAR or most < 1 / FAR:
        return f"against the limit it takes {ratio:.2f} times as long as before [{least:.2f}, {most:.2f}]"
    return ""
