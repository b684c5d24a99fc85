"""What the cost model would try: a few configurations that a search has a look at after its other first tries.

They cost their trials and no more. The default stays first, and what the model expects of the rest is not heard: on an
H200 and an H100 its first choice was within a few per cent of the fastest trial for half of the workloads, and up to
2.6 times slower for some. CPUs get none: over whole slices of each family the model's ranks agree with a GPU's times at
0.77 to 0.97 (all but KV concat), with a CPU's at -0.5 to 0.6, and its first choice is 1.1 to 4.5 times slower than the
fastest there (`python -m tuner judge`; README, *Without the phone*).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from kernels.peaks import Peaks
from kernels.space import Space
from kernels.spec import Config
from tuner.predict import rank

MOST = 3  # variants that give one each: the model's best few of one variant are alike
LOOKS = 500  # configurations that are ranked: a tenth of a second on an idle Zen 3, half a one on a busy one


def suggestions(space: Space, peaks: Peaks) -> list[dict[str, Any]]:
    """The best of each variant by the model, the best MOST of those, fastest first; [] for an empty space or a CPU.

    Of a space with more than LOOKS configurations a random part is ranked, the same one every time.
    """
    if space.sheet.kind == "cpu":
        return []
    best: dict[str, dict[str, Any]] = {}
    for _, config in rank(space.family, space.workload, _looked_at(space), space.sheet, peaks):
        best.setdefault(config["variant"], dict(config))
    return list(best.values())[:MOST]


def _looked_at(space: Space) -> list[Config]:
    few = list(islice(space.configs(), LOOKS + 1))
    return list(few) if len(few) <= LOOKS else list(_drawn(space))


def _drawn(space: Space) -> Iterator[Config]:
    rng = np.random.default_rng(0)
    for _ in range(LOOKS):
        if config := space.draw(rng):
            yield config
