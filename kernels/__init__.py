"""What can run and what was decided, as data. Imports NumPy and `reference` alone: no OpenCL is needed to read it."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from kernels.spec import Family


@functools.cache
def families() -> Mapping[str, Family]:
    """Every kernel operation by name: the sub-packages that define FAMILY. A new folder needs no registration."""
    found: dict[str, Family] = {}
    for module in pkgutil.iter_modules(__path__):
        if module.ispkg:
            family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
            if isinstance(family, Family):
                found[family.name] = family
    return MappingProxyType(found)
