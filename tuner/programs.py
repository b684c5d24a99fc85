"""Few fit most: the K programs of a family that serve all its buckets with the least regret.

A program is a source with build options, what a phone compiles at start-up. A bucket's regret is by what fraction its
kernel is slower than the one that won there, from rounds in which both ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import kernels
from kernels.plan import Planned
from kernels.spec import DeviceSheet, Workload
from tuner.decisions import Decision, Record, decisions, final_of, latest_study, notes
from tuner.finals import Final, Finalist, Winner, over

NOTE = "programs"  # the journal's notes about contests in which programs of other buckets ran
EXACT = 20_000  # sets of programs that are all tried; of more, some are improved step by step
POOL = 12  # programs of one kind of job that may serve its buckets: the winners first

Judge = Callable[[Sequence[float]], tuple[float, ...]]  # regrets of the buckets that are served → less is better
Regrets = Sequence[Mapping[str, float]]  # per bucket: program → regret; what is missing cannot serve it


@dataclass(frozen=True)
class Selection:
    """Programs that serve every bucket."""

    serves: tuple[str, ...]  # per bucket: its program
    worst: float
    mean: float

    @property
    def programs(self) -> frozenset[str]:
        """All of them."""
        return frozenset(self.serves)


def worst_then_mean(regrets: Sequence[float]) -> tuple[float, ...]:
    """By what one choice of programs is better than another."""
    return max(regrets, default=math.inf), sum(regrets)


def choose(regrets: Regrets, most: int, judge: Judge = worst_then_mean) -> Selection:
    """The `most` programs, or as many as it takes to serve every bucket, with the least worst and then mean regret.

    Exact where there are at most EXACT sets to try, else greedy with exchanges. `judge` puts another aim in the place
    of these two. Raises ValueError for a bucket that nothing serves.
    """
    if not all(regrets):
        raise ValueError("a bucket has no program at all")
    every = sorted({program for bucket in regrets for program in bucket})
    for count in range(min(most, len(every)), len(every) + 1):
        exact = math.comb(len(every), count) <= EXACT
        badness = partial(_badness, regrets, judge)
        chosen = (
            min(map(frozenset, combinations(every, count)), key=badness) if exact else _greedy(badness, every, count)
        )
        if badness(chosen)[0] == 0:
            serves = tuple(min(sorted(chosen & set(bucket)), key=bucket.__getitem__) for bucket in regrets)
            values = [bucket[program] for bucket, program in zip(regrets, serves, strict=True)]
            return Selection(serves, max(values), sum(values) / len(values))
    raise AssertionError("all programs together serve every bucket")


def _badness(regrets: Regrets, judge: Judge, programs: frozenset[str]) -> tuple[float, ...]:
    """Buckets not served, then how the others are judged."""
    best = [min((bucket[p] for p in programs if p in bucket), default=math.inf) for bucket in regrets]
    served = [regret for regret in best if math.isfinite(regret)]
    return len(best) - len(served), *judge(served)


def _greedy(badness: Callable[[frozenset[str]], tuple[float, ...]], every: Sequence[str], count: int) -> frozenset[str]:
    """The program that helps most, one after the other; then exchanges, as long as one helps."""
    chosen: frozenset[str] = frozenset()
    while len(chosen) < count:
        chosen = min((chosen | {p} for p in every if p not in chosen), key=badness)
    while True:
        swaps = (chosen - {out} | {new} for out in sorted(chosen) for new in every if new not in chosen)
        better = min(swaps, key=badness, default=chosen)
        if not badness(better) < badness(chosen):
            return chosen
        chosen = better


# ---------------------------------------------------------------- who may serve what


def kind(workload: Workload) -> tuple[str, str]:
    """What kind of job this is: those whose defines differ (format, types, options) cannot share a program."""
    return workload.family, repr(sorted(kernels.families()[workload.family].defines(workload).items()))


def too_few(most: int | None, planned: Sequence[Planned]) -> list[str]:
    """A sentence for each family whose kinds of job alone are more than `most`."""
    sentences = []
    for name in dict.fromkeys(item.workload.family for item in planned):
        least = len({kind(item.workload) for item in planned if item.workload.family == name})
        if most is not None and least > most:
            sentences.append(
                f"{name} has {least} kinds of job (formats, types, options), and each needs a program of its own: "
                f"--max-programs {most} leaves it {least}"
            )
    return sentences


def missing(decision: Decision, all_of: Sequence[Decision], sheet: DeviceSheet) -> list[Finalist]:
    """Finalists of other buckets whose programs could serve this one and were not measured there.

    They read the layout that was chosen. The winners come first, POOL at most with those that were measured.
    """
    final, winner, workload = decision.final, decision.winner.finalist, decision.workload
    seen = {finalist.candidate.program for finalist in final.finalists if finalist.layout == winner.layout}
    found: list[Finalist] = []
    others = [other for other in all_of if other.workload.family == workload.family and other is not decision]
    ranked = [(other.winner.finalist, *other.winner.ranking) for other in others]
    for place in range(max(map(len, ranked), default=0)):
        for finalists in ranked:
            if place >= len(finalists) or len(seen) >= POOL:
                continue
            candidate = finalists[place].candidate.at(workload, sheet)
            if candidate is None or candidate.driver_local or candidate.program in seen:
                continue
            moved = Finalist(candidate, ())
            if moved.layout == winner.layout:
                seen.add(candidate.program)
                found.append(moved)
    return found


# ---------------------------------------------------------------- what is decided


@dataclass(frozen=True)
class Server:
    """A kernel that could serve a bucket."""

    regret: float
    finalist: Finalist
    final: Final  # in which it ran

    @property
    def ns(self) -> float:
        """Its time, at the pace of all rounds."""
        return self.final.median_ns(self.finalist)


def decided(records: Sequence[Record], sheet: DeviceSheet) -> list[Decision]:
    """Who serves each workload of the last finished study; with few programs where the request asked for that.

    Raises KilnError for a journal without finals.
    """
    study, finals = latest_study(records)
    found = decisions(finals, sheet)
    most = study["request"].get("max_programs")
    if most is None:
        return found
    served: dict[Workload, Decision] = {}
    for mine, able in servers(records, found):
        regrets = [{program: server.regret for program, server in bucket.items()} for bucket in able]
        for decision, bucket, program in zip(mine, able, choose(regrets, most).serves, strict=True):
            served[decision.workload] = _serve(decision, bucket[program])
    return [served[decision.workload] for decision in found]


def servers(
    records: Sequence[Record], found: Sequence[Decision]
) -> Iterator[tuple[list[Decision], list[dict[str, Server]]]]:
    """Family by family: its decisions, and for each of them who was measured there, by program."""
    more = {final.default.candidate.workload: final for final in map(final_of, notes(records, NOTE))}
    for name in dict.fromkeys(decision.workload.family for decision in found):
        mine = [decision for decision in found if decision.workload.family == name]
        yield mine, [_servers(decision, more.get(decision.workload)) for decision in mine]


def _servers(decision: Decision, more: Final | None) -> dict[str, Server]:
    """Who could serve a bucket, by program, with the regret over its winner."""
    won = decision.winner.finalist
    found: dict[str, Server] = {won.candidate.program: Server(0.0, won, decision.final)}
    for final in (decision.final, more) if more else (decision.final,):
        base = next((f for f in final.finalists if f.candidate == won.candidate), None)
        for finalist in final.finalists if base else ():
            assert base is not None
            program = finalist.candidate.program
            server = Server(max(0.0, over(base, finalist).ratio - 1), finalist, final)
            if not final.fits(finalist):
                continue
            if finalist.layout == won.layout and (program not in found or server.regret < found[program].regret):
                found[program] = server
    return found


def _serve(decision: Decision, server: Server) -> Decision:
    """The decision with that kernel in the winner's place; what won comes first among the others."""
    if server.finalist is decision.winner.finalist:
        return replace(decision, regret=0.0)
    final, won = server.final, decision.winner.finalist.candidate
    others = [
        f for f in final.finalists if f.layout == server.finalist.layout and f is not server.finalist and final.fits(f)
    ]
    ranking = sorted(others, key=lambda f: (f.candidate != won, final.median_ns(f)))
    winner = Winner(server.finalist, over(server.finalist, final.default), 0, tuple(ranking))
    return Decision(decision.workload, final, winner, server.regret)
