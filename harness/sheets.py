"""Prints a device sheet: every value with its kind and where it comes from, and the drivers' traps."""

from __future__ import annotations

import textwrap
from typing import Any

from harness.tables import table
from kernels.claims import shown
from kernels.sheet import KEYS, Sheet, Trap, Value

_WIDTH = 60  # of a value's column


def text(sheet: Sheet, why: str) -> str:
    """The sheet for people. `why` says why it is not the device itself that is shown."""
    one = sheet.identity
    items: list[Value | Trap] = [*sheet.values.values(), *sheet.traps]
    every = [source for item in items for source in item.sources]
    numbers = {source: str(number) for number, source in enumerate(dict.fromkeys(every), 1)}

    def cited(item: Value | Trap) -> str:
        return ", ".join(numbers[source] for source in item.sources)

    parts = [why, f"what its sheet says of the {one.model} ({one.vendor}):"]
    rows = [[key, _wrapped(shown(value.value)), value.kind, cited(value)] for key, value in sheet.values.items()]
    parts.append(table(["", "value", "kind", "source"], rows))
    if unknown := unknown_keys(sheet):
        parts.append(f"not known: {', '.join(unknown)}")
    for trap in sheet.traps:
        where = f", compiler {' and '.join(trap.compiler)}" if trap.compiler else ""
        parts.append(f"trap ({trap.kind}, source {cited(trap)}{where}): {trap.what}\n   {trap.guard}")
    parts += [f"source {number}: {source}" for source, number in numbers.items()]
    return "\n".join(parts)


def unknown_keys(sheet: Sheet) -> list[str]:
    """What a sheet could hold and this one does not."""
    return [f"{name}.{key}" for name, keys in KEYS.items() for key in keys if f"{name}.{key}" not in sheet.values]


def to_json(sheet: Sheet) -> dict[str, Any]:
    """For `--json`."""
    one = sheet.identity
    return {
        "sheet": sheet.name,
        "vendor": one.vendor,
        "model": one.model,
        "type": one.type,
        "values": {
            key: {"value": value.value, "kind": value.kind, "sources": list(value.sources)}
            for key, value in sheet.values.items()
        },
        "traps": [
            {
                "what": trap.what,
                "compiler": list(trap.compiler),
                "guard": trap.guard,
                "kind": trap.kind,
                "sources": list(trap.sources),
                "deny": [{"kernel": rule.family, "params": dict(rule.params)} for rule in trap.deny],
            }
            for trap in sheet.traps
        ],
    }


def _wrapped(words: str) -> str:
    return "\n".join(textwrap.wrap(words, _WIDTH))
