"""A simulator at work: runs candidates under Oclgrind and tells what it saw."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from harness import oclgrind
from harness.answers import Refused, RunnerLost, Timeouts
from harness.candidate import Candidate
from harness.check import check_shape
from harness.devices import sheet_from
from harness.emulation import BEGIN
from harness.errors import KilnError
from harness.measure import Meter
from harness.supervisor import Supervisor
from kernels.spec import DeviceSheet, Errors, Measurement, Verdict

RUN_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Seen:
    """What a run showed."""

    findings: tuple[str, ...]  # a wrong result is one too
    gave_up: str  # why the simulator did not come to its end, "" = it did


class _Simulator(Supervisor):
    """Fills buffers by writing them: of a fill Oclgrind remembers one pattern's length as initialised, and no more."""

    def fill(self, name: str, size: int, pattern: bytes = b"\0") -> None:
        """Make a buffer of `size` bytes resident, filled with the pattern over and over."""
        self.put(name, (pattern * (size // len(pattern) + 1))[:size])


class Watch:
    """A simulator and its log."""

    def __init__(self, log: Path, *, uninitialized: bool) -> None:
        self._log = log
        timeouts = Timeouts(build_s=RUN_TIMEOUT_S, run_s=RUN_TIMEOUT_S)
        command = oclgrind.command(log, uninitialized=uninitialized)
        self.supervisor = _Simulator(command, timeouts=timeouts, recycle_after=None)
        self._meter: Meter | None = None
        self._read = 0

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.supervisor.close()

    @property
    def sheet(self) -> DeviceSheet:
        """What the simulator says of itself. Raises KilnError where it does not start."""
        try:
            description = self.supervisor.hello().device
        except RunnerLost as lost:
            raise KilnError(f"Oclgrind does not start: {lost.log}\n{self._news()}") from lost
        return replace(sheet_from(description), local_bytes=oclgrind.LOCAL_BYTES)

    def run(self, candidate: Candidate, sheet: DeviceSheet, *, texels: bool) -> Seen:
        """Build a candidate and run it at its own shape; `texels`: buffers stand in for images."""
        self._meter = self._meter or Meter(self.supervisor, sheet)
        bench = replace(self._meter.bench, sheet=sheet, margin_bytes=0, texels=texels)
        outcome: Errors | Measurement
        try:
            self.supervisor.build(candidate.program, candidate.source, (*candidate.options, *oclgrind.BUILD_OPTIONS))
            outcome = check_shape(bench, candidate, RUN_TIMEOUT_S)
        except (Refused, RunnerLost) as failure:
            outcome = self._meter.failed(failure)
        heard = oclgrind.read_log(self._news())
        if heard.findings or heard.gave_up:
            self.supervisor.restart()  # it counts its messages, and falls silent after a thousand
        texts = [finding.text(candidate.source.rpartition(BEGIN)[2]) for finding in heard.findings]
        gave_up = heard.gave_up
        if isinstance(outcome, Measurement) and not gave_up:
            if outcome.verdict is Verdict.WRONG_RESULT:
                texts.append(f"wrong result {outcome.log}")
            else:
                gave_up = f"{outcome.verdict}: {outcome.log}"
        return Seen(tuple(dict.fromkeys(texts)), gave_up)

    def _news(self) -> str:
        """What was logged since the last call."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            text = log.read()
        self._read += len(text)
        return text.decode(errors="replace")
