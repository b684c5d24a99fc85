"""tuner/matmul.py: which family serves how many rows, from paired rounds."""

from __future__ import annotations

import pytest

import kernels
from harness.candidate import Candidate
from kernels.jobs import dtype_policy
from kernels.spec import Workload
from kernels.tuned import Route
from tuner.matmul import FEW, MANY, last_row_of_gemv, rivals, routes


def note(rows: int, gemv_ns: int, gemm_ns: int, weights: str = "int4/g128") -> dict[str, object]:
    samples = {FEW: [gemv_ns + i for i in range(7)], MANY: [gemm_ns + i for i in range(7)]}
    return {"weights": weights, "N": 64, "K": 128, "rows": rows, "samples_ns": samples}


@pytest.mark.parametrize(
    ("gemm_ns", "last"),
    [
        ((900, 900, 900, 900), 16),  # GEMV wins wherever both run
        ((900, 900, 900, 100), 11),  # between 8, which it won, and 16: the geometric mean
        ((900, 100, 100, 100), 2),
        ((100, 100, 100, 100), 1),  # a single row is GEMV's alone
        ((100, 900, 100, 100), 5),  # one lost race does not count where a later one is won
    ],
)
def test_gemm_takes_over_where_it_wins_from_there_on(gemm_ns: tuple[int, ...], last: int) -> None:
    measured = [note(rows, 500, ns) for rows, ns in zip((2, 4, 8, 16), gemm_ns, strict=True)]
    assert last_row_of_gemv(measured) == last
    assert last_row_of_gemv(measured[::-1]) == last


def test_every_format_has_its_own_edge_and_no_row_is_served_twice_or_not_at_all() -> None:
    notes = [note(rows, 500, 100, "int8") for rows in (2, 4, 8, 16)] + [note(16, 500, 900)]
    found = routes(notes, (FEW, MANY))
    assert found == (
        Route(FEW, "int8", {"M": (1, 1)}),
        Route(MANY, "int8", {"M": (2, 4096)}),
        Route(FEW, "int4/g128", {"M": (1, 16)}),
        Route(MANY, "int4/g128", {"M": (17, 4096)}),
    )


def test_without_a_measurement_the_contracts_decide() -> None:
    assert routes([], (FEW,)) == (Route(FEW, None, {"M": (1, 16)}),)
    assert routes([], ("rmsnorm",)) == ()
    assert routes([], (FEW, MANY)) == (Route(FEW, None, {"M": (1, 16)}), Route(MANY, None, {"M": (17, 4096)}))


def test_only_plain_products_of_one_matrix_compete() -> None:
    def winner(family: str, rows: int, n: int = 256, **options: object) -> Candidate:
        dims = {"M": rows, "N": n, "K": 256}
        workload = Workload(family, dims, dtype_policy("fp16", "fp32", "int4/g128"), "int4/g128", options)
        made = kernels.families()[family]
        return Candidate(made, workload, made.variants[0].config())

    few, many = winner(FEW, 4), winner(MANY, 16)
    others = [winner(FEW, 1, 512), winner(MANY, 128, residual=True)]
    (pair,) = rivals([few, many, *others])
    assert (pair.few, pair.many) == ((few,), (many,))
    assert rivals([few, *others]) == []
