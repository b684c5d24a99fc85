"""What may lie between this host and a runner that is not a process of this machine: a cable, a phone that reboots."""

from __future__ import annotations

from typing import Protocol

from kernels.spec import Verdict


class Link(Protocol):
    """What a supervisor asks of the way to its runner. Called by the supervisor's thread; each may wait."""

    @property
    def bytes_per_s(self) -> float:
        """The slowest that a transfer over it is given time for."""

    @property
    def waited_s(self) -> float:
        """For how long it has waited in all, for the other end to come back or to cool: no time of any search."""

    def boot(self) -> str | None:
        """What changes with every boot of the other end, None where that is not known."""

    def ready(self) -> None:
        """Before a runner is started: have everything in its place. Raises KilnError where it cannot be."""

    def settle(self) -> None:
        """Between candidates: wait until the other end is fit to be measured. Raises KilnError where it will not be."""

    def shell(self, text: str) -> str:
        """What a line of shell prints at the other end. Raises OSError where it fails."""

    def judge(self, op: str, verdict: Verdict, how: str, status: int | None) -> tuple[Verdict, str]:
        """After a runner was lost during `op`: what that means for the candidate, and how, to follow "the runner".

        `verdict` and `how` are what it looks like from here, `status` the command's exit status where it has one.
        Raises DeviceMissing where the other end is gone for good.
        """
