"""Damages tuned configs at random: cut, mistyped, enormous, in other units, told twice, nested, overlapping."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Json = Any
_ODD = (
    None, True, False, 0, 1, -1, 2, 64.0, 0.5, -0.0, 1e-7, 1e16, 1e300, 2**31, 2**53 - 1, 2**53, 2**62, 2**63 - 1,
    2**63, -(2**63), 10**30, "", "1", "64", "fp16", "int4/g128", "1.0", "1.1.0", "01.0", "٣.0", "0.9", "2.0.0", "M",
    "x", "64 KiB", "120 µs", "\x00", "é", "\ud800", ">=E031.38", [], {}, [1], [1, 2], [2, 1], [1, None], [None, 1],
    [[]], {"ceil": ["N", 4]}, {"ceil": ["N", 0]}, {"M": [1, None]}, {"image": {}}, ["x", "y"],
)  # fmt: skip


def damaged(rng: random.Random, document: Json) -> bytes:
    """The bytes of a document after one to three injuries."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(_INJURIES)(rng, document)
    text = json.dumps(document, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    return rng.choice(_TEXT)(rng, data) if rng.random() < 0.3 else data


def _places(value: Json) -> list[tuple[Json, Any]]:
    """(parent, key) of every value below the top."""
    found, pending = [], [value]
    while pending:
        parent = pending.pop()
        keys = parent if isinstance(parent, dict) else range(len(parent)) if isinstance(parent, list) else ()
        for key in keys:
            found.append((parent, key))
            pending.append(parent[key])
    return found


def _place(rng: random.Random, document: Json, good: Callable[[Json], bool] = lambda value: True) -> tuple[Json, Any]:
    places = [(parent, key) for parent, key in _places(document) if good(parent[key])]
    return rng.choice(places) if places else ({"": None}, "")


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _swap_type(rng: random.Random, document: Json) -> None:
    parent, key = _place(rng, document)
    parent[key] = copy.deepcopy(rng.choice(_ODD))


def _remove(rng: random.Random, document: Json) -> None:
    parent, key = _place(rng, document)
    del parent[key]


def _rename(rng: random.Random, document: Json) -> None:
    parent, key = _place(rng, document)
    if isinstance(parent, dict):
        parent[rng.choice((key.upper(), key + " ", "later", ""))] = parent.pop(key)


def _exchange(rng: random.Random, document: Json) -> None:
    (one, a), (other, b) = _place(rng, document), _place(rng, document)
    one[a], other[b] = copy.deepcopy(other[b]), copy.deepcopy(one[a])


def _repeat(rng: random.Random, document: Json) -> None:
    parent, key = _place(rng, document, lambda value: isinstance(value, list) and bool(value))
    if isinstance(parent[key], list):
        parent[key].insert(rng.randrange(len(parent[key]) + 1), copy.deepcopy(rng.choice(parent[key])))


def _nudge(rng: random.Random, document: Json) -> None:
    """A number a little off, or in another unit."""
    parent, key = _place(rng, document, _is_number)
    if _is_number(parent[key]):
        parent[key] = rng.choice(
            [parent[key] + 1, parent[key] - 1, parent[key] * 1000, parent[key] / 1000, parent[key] * 1024, -parent[key]]
        )


def _entries(document: Json) -> list[Json]:
    kernels = document.get("kernels") if isinstance(document, dict) else None
    sections = kernels.values() if isinstance(kernels, dict) else ()
    lists = [s.get("entries") for s in sections if isinstance(s, dict)]
    return [e for entries in lists if isinstance(entries, list) for e in entries if isinstance(e, dict)]


def _bucket(rng: random.Random, document: Json) -> None:
    """Buckets that overlap, leave a gap, or are of another dim."""
    entries = [entry for entry in _entries(document) if isinstance(entry.get("bucket"), dict) and entry["bucket"]]
    if not entries:
        return
    entry, other = rng.choice(entries), rng.choice(entries)
    kind = rng.randrange(4)
    if kind == 0:
        entry["bucket"] = copy.deepcopy(other["bucket"])
    elif kind == 1:
        entry["bucket"].pop(rng.choice(list(entry["bucket"])))
    elif kind == 2:
        entry["bucket"] = None
    else:
        dim = rng.choice(list(entry["bucket"]))
        low = rng.choice((1, 2, 8, 17, 8191, 8192))
        entry["bucket"][dim] = [low, rng.choice((None, low, low + 1, 2 * low, 8191))]


def _option(rng: random.Random, document: Json) -> None:
    """Options that are one to Python's == and several as text."""
    entries = [entry for entry in _entries(document) if isinstance(entry.get("match"), dict)]
    for entry in rng.sample(entries, min(2, len(entries))):
        entry["match"]["options"] = {"gated": rng.choice((True, 1, 1.0, "True", "1", False, 0))}


def _nest(rng: random.Random, document: Json) -> None:
    parent, key = _place(rng, document)
    value: Json = 1
    for _ in range(rng.choice((10, 50, 60, 64, 70))):
        value = [value] if rng.random() < 0.5 else {"a": value}
    if rng.random() < 0.5 and isinstance(parent, dict):
        parent["later"] = value  # an unknown field, whose content nobody looks at
    else:
        parent[key] = value


_INJURIES = (
    _swap_type, _swap_type, _swap_type, _remove, _rename, _exchange, _repeat, _nudge, _nudge, _bucket, _bucket, _option,
    _nest,
)  # fmt: skip


# ---------------------------------------------------------------- of the text


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    pieces = (
        b"\x00",
        b"\xef\xbb\xbf",
        b"\xff",
        b",",
        b"]",
        b'"',
        b"\\ud800",
        b"\\u0000",
        b"NaN",
        b"-Infinity",
        b"1e999",
    )
    at = rng.choice((0, len(data), rng.randrange(len(data))))
    return data[:at] + rng.choice(pieces) + data[at:]


def _twice(rng: random.Random, data: bytes) -> bytes:
    """A member told twice in one object."""
    name = rng.choice((b'"driver":', b'"id":', b'"bucket":', b'"format":', b'"median_ns":'))
    value = rng.choice((b"1", b'"x"', b"null"))
    return data.replace(name, name + b" " + value + b", " + name, 1)


def _digits(rng: random.Random, data: bytes) -> bytes:
    """A number with more digits than any type holds."""
    at = data.find(b": 1", rng.randrange(len(data)))
    tail = rng.choice((b"0" * 25, b"0" * 5000, b"e400", b"e-400", b".5e18", b"." + b"0" * 400, b".", b"_0"))
    return data if at < 0 else data[: at + 3] + tail + data[at + 3 :]


def _deep(rng: random.Random, data: bytes) -> bytes:
    """Lists within each other, beyond what a recursive reader bears."""
    at, depth = data.find(b": ", rng.randrange(len(data))), rng.choice((80, 2_000, 100_000))
    inner = b"[" * depth + b"]" * depth
    return data if at < 0 else data[: at + 2] + rng.choice((inner, b"[" * depth)) + b"," + data[at + 2 :]


_TEXT = (_cut, _flip, _flip, _insert, _twice, _digits, _deep)
