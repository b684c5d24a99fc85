"""The near end of a side: starts its process, asks it, and says in one sentence what it died of."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from harness.checkouts import Side
from harness.child import Child, Ended
from harness.errors import KilnError
from harness.runner.protocol import GarbageError

# Of one request: the largest check builds several shapes with a phone's compiler and draws 500 million weights.
_TIMEOUT_S = 600.0


class Peer:
    """A worker process (harness.side) of one side. For one thread at a time, except `kill`."""

    def __init__(self, side: Side) -> None:
        """Start it. The side's own folder comes before all others, so that its kernels are the ones imported."""
        self.side = side
        path = str(side.path)
        start = f"import sys; sys.path.insert(0, {path!r}); from harness.side import main; main()"
        self._asked = 0
        try:
            self._child = Child((sys.executable, "-P", "-c", start))
        except OSError as error:
            raise KilnError(f"no process can be started for {side.name}: {error}") from error

    def kill(self) -> None:
        """End it at once, from any thread: whoever waits for its answer has lost it."""
        self._child.kill()

    def close(self) -> None:
        """End it and everything it started, and remove its files."""
        self._child.close()

    def ask(self, op: str, **fields: Any) -> Mapping[str, Any]:
        """One request, one answer; an answer with `failed` is one. Raises KilnError where this side cannot go on."""
        self._asked += 1
        try:
            frame = {"id": self._asked, "op": op, **fields}
            answer, _ = self._child.ask(frame, (), time.monotonic() + _TIMEOUT_S)
        except TimeoutError:
            raise KilnError(f"{self.side.name} did not {op} within {_TIMEOUT_S:.0f} s and was ended") from None
        except (Ended, GarbageError) as error:
            words = self._child.last_words().strip().splitlines()
            raise KilnError(self._unfit(words[-1] if words else str(error))) from error
        if not answer["ok"]:
            raise KilnError(self._unfit(str(answer["error"]["message"]).strip().splitlines()[-1]))
        return answer

    def _unfit(self, why: str) -> str:
        return f"the kernels of {self.side.name} cannot be measured by this harness: {why}"
