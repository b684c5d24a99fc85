"""Are `reference`, `kernels`, `harness` and `tuner` all ours? Their names are generic and other projects publish some.

A package named `kernels` is on PyPI (Hugging Face's), and pip lets one overwrite the other silently. A program that
imported half of its parts from a stranger would fail far from the cause, so every `__main__` asks here first, before
any other import of ours. Only the standard library is imported.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("reference", "kernels", "harness", "tuner")


def _folder(package: str) -> Path | None:
    """The folder a package would be imported from, or None; finding a top-level package does not run its code."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    if not places:
        return None
    place = Path(places[0]).resolve()
    return place.parent if spec.origin else place


def stranger(folder_of: Callable[[str], Path | None] = _folder) -> str | None:
    """One sentence when the four packages do not share a parent directory, naming both paths; None when all is well."""
    ours = folder_of("harness")
    if ours is None:
        return "the package harness cannot be found; run from the checkout or install kiln-workbench again"
    for package in PACKAGES:
        folder = folder_of(package)
        if folder is None:
            return f"the package {package} is missing beside {ours}; install kiln-workbench again"
        if folder.parent != ours.parent:
            return (
                f"the package {package} comes from {folder} but harness from {ours}: another distribution uses the "
                "same name; install kiln-workbench in an environment of its own"
            )
    return None


def stop_at_strangers() -> None:
    """End the process with exit code 1 and one sentence on stderr if a package of ours is somebody else's."""
    if sentence := stranger():
        print(sentence, file=sys.stderr)
        raise SystemExit(1)
