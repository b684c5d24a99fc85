"""How much memory a runner takes for itself, between its start and its end: drivers leak."""

from __future__ import annotations

from dataclasses import dataclass

# Both CPU runtimes settle 0.3 to 0.5 GiB above their first reading within ten GEMVs; then Intel's takes 0.7 MiB a
# program and PoCL 5.5, 1.1 GiB before it is recycled (Gemma 2B). That is lived with; what takes twice as much is told.
MUCH_BYTES = 2 << 30
MUCH_TIMES = 2.0


@dataclass
class Growth:
    """One runner's own memory, what it was given to hold left out."""

    generation: int
    first_bytes: int
    last_bytes: int
    candidates: int = 1  # measured meanwhile

    @property
    def much(self) -> bool:
        """Whether a user should hear of it."""
        grown = self.last_bytes - self.first_bytes
        return grown > MUCH_BYTES and self.last_bytes > MUCH_TIMES * self.first_bytes

    def __str__(self) -> str:
        first, last = (f"{size / (1 << 30):.1f}" for size in (self.first_bytes, self.last_bytes))
        return f"runner {self.generation} grew from {first} to {last} GiB over {self.candidates} candidates"


class Watch:
    """Keeps a Growth for every runner there was."""

    def __init__(self) -> None:
        self.growths: list[Growth] = []

    def look(self, generation: int, rss_bytes: float | None, held_bytes: int) -> None:
        """Take a reading between two candidates: the process's resident bytes, and those of the buffers among them.

        Buffers of a GPU are no part of the process; then what is left may be below zero and counts as nothing.
        """
        if rss_bytes is None:
            return
        own = max(0, round(rss_bytes) - held_bytes)
        if self.growths and self.growths[-1].generation == generation:
            self.growths[-1].last_bytes = own
            self.growths[-1].candidates += 1
        else:
            self.growths.append(Growth(generation, own, own))
