"""Rewrites OpenCL C so that halves of vectors are taken and put lane by lane, for Oclgrind 21.10 misreads shuffles.

clang makes `(float8)(a, b)` of two float4 by widening each with undefined lanes first, and `v.even = w` likewise; the
simulator's check for uninitialised values then reads the shadow of lane -1, or crashes. Of sixteen lanes it also takes
`v.hi` for uninitialised. Calls that name every lane take their place: the same values, on the same lines.
"""

from __future__ import annotations

import re

_TYPES = ("char", "uchar", "short", "ushort", "int", "uint", "long", "ulong", "float")
_LITERAL = re.compile(r"\((?:(?:u?(?:char|short|int|long)|float)(?:4|8|16)|[a-z]+V)\)\(")
_PUT = re.compile(r"\b(\w+)\.(lo|hi|even|odd) = ([^;=][^;]*);")
_GET = re.compile(r"(\b\w+(?:\[[^][]*\])*|(?<!\w)\(\w+\))\.(lo|hi|even|odd)\b")


def rewrite(source: str) -> str:
    """The source with vectors of two halves, and assignments to halves, made by `PRELUDE`'s functions."""
    return _GET.sub(r"kiln_\2(\1)", _PUT.sub(r"\1 = kiln_put_\2(\1, \3);", _join(source)))


def _join(source: str) -> str:
    found, at = [], 0
    while match := _LITERAL.search(source, at):
        begin = match.end()
        comma, end = _arguments(source, begin)
        found.append(source[at : match.start()])
        if comma is None:
            found.append(match[0])
            at = begin
        else:
            first, second = source[begin:comma], source[comma + 1 : end]
            found.append(f"kiln_join({_join(first)},{_join(second)})")
            at = end + 1
    return "".join(found) + source[at:]


def _arguments(source: str, begin: int) -> tuple[int | None, int]:
    """Of an argument list that begins there: its comma, None where it has another number than one, and its end."""
    depth, commas, at = 1, [], begin
    while at < len(source):
        depth += (source[at] in "([{") - (source[at] in ")]}")
        if not depth:
            break
        if source[at] == "," and depth == 1:
            commas.append(at)
        at += 1
    return (commas[0] if len(commas) == 1 else None), at


def _functions() -> str:
    """kiln_join(a, b), and for each half kiln_lo(v) and kiln_put_lo(v, a), which gives v with `a` in its place."""
    text = []
    for name in _TYPES:
        for width in (1, 2, 4, 8):
            half, whole = f"{name}{width if width > 1 else ''}", f"{name}{2 * width}"
            v, p, q = _lanes("v", 2 * width), _lanes("p", width), _lanes("q", width)
            text.append(_function("join", whole, f"{half} p, {half} q", p + q))
            places = {"lo": range(width), "hi": range(width, 2 * width)}
            places |= {"even": range(0, 2 * width, 2), "odd": range(1, 2 * width, 2)}
            for which, place in places.items():
                put = [p[place.index(lane)] if lane in place else v[lane] for lane in range(2 * width)]
                text.append(_function(which, half, f"{whole} v", [v[lane] for lane in place]))
                text.append(_function(f"put_{which}", whole, f"{whole} v, {half} p", put))
    return "\n".join(text) + "\n"


def _lanes(name: str, width: int) -> list[str]:
    return [f"{name}.s{lane:x}" for lane in range(width)] if width > 1 else [name]


def _function(name: str, result: str, parameters: str, lanes: list[str]) -> str:
    value = f"({result})({', '.join(lanes)})"
    return f"static inline __attribute__((overloadable)) {result} kiln_{name}({parameters}) {{ return {value}; }}"


PRELUDE = _functions()
