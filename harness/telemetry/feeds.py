"""Where texts come from: a thread on this machine, or the runner's own thread on the device."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.answers import Refused, RunnerLost
from harness.errors import KilnError
from harness.runner.watching import Sampler
from harness.supervisor import Supervisor
from harness.telemetry.decoding import Decoder
from harness.telemetry.probing import Text, local_read

_PARTING = 50e-6  # two devices' clocks run apart by no more of the time than this


class Feed(ABC):
    """Reads once, then samples into a decoder until its end."""

    uncertainty_ns: int | None = None  # of its clock against the host's

    def __init__(self) -> None:
        self.notes: list[str] = []

    @abstractmethod
    def read(self, paths: Sequence[str]) -> Sequence[Text]:
        """Texts of small files now."""

    @abstractmethod
    def begin(self, decoder: Decoder) -> None:
        """Sample the decoder's files from now on."""

    def poll(self) -> None:  # noqa: B027  (a local thread needs none)
        """Hand on what was sampled."""

    @abstractmethod
    def end(self) -> None:
        """Sample no more; everything has been handed on."""

    @abstractmethod
    def cost(self) -> tuple[float | None, str | None]:
        """CPU time of the sampling in percent of one core, or why it is not known."""


class LocalFeed(Feed):
    """This machine's files."""

    def __init__(self, read: Callable[[str], str]) -> None:
        super().__init__()
        self._read = read
        self._sampler: Sampler | None = None

    def read(self, paths: Sequence[str]) -> Sequence[Text]:
        """Texts of small files now."""
        return local_read(self._read)(paths)

    def begin(self, decoder: Decoder) -> None:
        """Sample the decoder's files from now on."""
        self._sampler = Sampler(decoder.files, decoder.feed, self._read)

    def end(self) -> None:
        """Sample no more."""
        if self._sampler is not None:
            self._sampler.stop()

    def cost(self) -> tuple[float | None, str | None]:
        """CPU time of the thread, reading and parsing, in percent of one core."""
        percent = self._sampler.cpu_percent if self._sampler is not None else None
        return percent, None if percent is not None else "nothing was sampled"


class RunnerFeed(Feed):
    """A device's files, through its runner (the protocol's optional `read`, `watch` and `watched`)."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__()
        self._supervisor = supervisor
        self._decoder: Decoder | None = None
        self._generation: int | None = None  # of the runner that samples
        self._clock: _Clock | None = None
        self._cpu: tuple[int, int, int] | None = None  # sampling since, until (device clock), CPU time

    def read(self, paths: Sequence[str]) -> Sequence[Text]:
        """Texts of small files now."""
        if "read" not in self._supervisor.hello().ops:
            return [(None, "the device's runner has no `read`")] * len(paths)

        def texts(answer: Mapping[str, Any]) -> list[Text]:
            got = list(zip(answer["texts"], answer["why"], strict=True))
            if len(got) != len(paths):
                raise ValueError(f"{len(got)} texts for {len(paths)} paths")
            return got

        return self._supervisor.ask("read", {"paths": list(paths)}, texts)

    def begin(self, decoder: Decoder) -> None:
        """Sample the decoder's files from now on."""
        self._decoder = decoder
        if not decoder.files:
            return
        if "watch" not in self._supervisor.hello().ops:
            decoder.lose(time.monotonic_ns(), "the device's runner has no `watch`")
            return
        files = [{"path": path, "period_ms": period_ms} for path, period_ms in decoder.files]
        since = self._exchange("watch", {"files": files})["clock_ns"]
        self._cpu = (since, since, 0)
        self._generation = self._supervisor.generation

    def poll(self) -> None:
        """Fetch what the runner has sampled; a runner that was replaced starts anew, and the gap is noted."""
        decoder = self._decoder
        if decoder is None or self._generation is None:
            return
        try:
            self._supervisor.hello()  # starts a runner where the last one has died
            if self._supervisor.generation != self._generation:
                self.notes.append("the runner was replaced: its samples since the last phase's end are lost")
                decoder.lose(time.monotonic_ns(), "the runner was replaced")
                self.begin(decoder)
            # The second answer is short: it relates the clocks better than one that carries much, for both.
            for answer in (self._exchange("watched", {}), self._exchange("watched", {})):
                self._take(decoder, answer)
        except (Refused, RunnerLost, KilnError) as error:
            self.notes.append(f"what was sampled since the last phase's end is lost: {str(error).splitlines()[0]}")
            decoder.lose(time.monotonic_ns(), "the runner was lost")

    def _take(self, decoder: Decoder, answer: Mapping[str, Any]) -> None:
        """Hand on the samples of an answer of `watched`."""
        assert self._clock is not None
        self.uncertainty_ns = max(self.uncertainty_ns or 0, self._clock.uncertainty_ns(time.monotonic_ns()))
        why = answer.get("why") or {}
        for t_ns, index, text in answer["samples"]:
            decoder.feed(self._clock.host(t_ns), index, text, None if text is not None else why.get(str(index)))
        if dropped := answer.get("dropped"):
            self.notes.append(f"{dropped} samples were dropped on the device: phases were too long between fetches")
        if self._cpu is not None and answer.get("cpu_ns") is not None:
            self._cpu = (self._cpu[0], answer["clock_ns"], answer["cpu_ns"])

    def _exchange(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A request whose answer tells the device's clock."""
        before = time.monotonic_ns()
        answer = self._supervisor.ask(op, fields, _checked)
        after = time.monotonic_ns()
        now = _Clock(before, after, answer["clock_ns"])
        if self._clock is None or op == "watch" or now.uncertainty_ns(after) < self._clock.uncertainty_ns(after):
            self._clock = now
        return answer

    def end(self) -> None:
        """Fetch the rest and have the runner sample no more."""
        self.poll()
        if self._generation == self._supervisor.generation:
            with contextlib.suppress(Refused, RunnerLost, KilnError):
                self._supervisor.ask("watch", {"files": []}, dict)

    def cost(self) -> tuple[float | None, str | None]:
        """CPU time of the runner's thread in percent of one of the device's cores."""
        if self._cpu is None or self._cpu[2] == 0:
            return None, "the device's runner does not tell what its sampling costs"
        since, until, cpu_ns = self._cpu
        return 100 * cpu_ns / max(1, until - since), None


@dataclass(frozen=True)
class _Clock:
    """One exchange of the device's clock: it was read at some time between `before` and `after` of the host's."""

    before: int
    after: int
    device: int

    def host(self, t_ns: int) -> int:
        """A time of the device's clock on the host's."""
        return t_ns - self.device + (self.before + self.after) // 2

    def uncertainty_ns(self, now: int) -> int:
        """Half the round trip, and what two quartz clocks may have parted since."""
        return (self.after - self.before) // 2 + round(_PARTING * (now - self.after))


def _checked(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer of `watch` or `watched`. Raises ValueError, KeyError or TypeError for one that is not."""
    if type(answer["clock_ns"]) is not int:
        raise TypeError("clock_ns is no integer")
    for t_ns, index, text in answer.get("samples", ()):
        if type(t_ns) is not int or type(index) is not int or not isinstance(text, str | None):
            raise TypeError("a sample is [t_ns, index, text or null]")
    return dict(answer)
