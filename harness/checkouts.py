"""Two commits side by side: git worktrees in a scratch folder, each behind the harness that is running now.

What is compared is kernels; so both commits' `kernels` and `reference` are measured by one and the same measuring code,
this harness. A side is a folder with three links: to this harness and to the two packages of the commit.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.errors import KilnError, UsageError
from harness.scratch import PREFIX, Scratch

PACKAGES = ("kernels", "reference")  # what a commit brings
WORKING_TREE = "working tree"  # the name of the side that is no commit
_SIDE, _TREE = "side-", "tree"  # of a side's folder, and of the checkout in it


@dataclass(frozen=True)
class Side:
    """What is measured on one side."""

    name: str  # as asked, with the short id
    path: Path  # holds the packages kernels, reference and harness


@contextlib.contextmanager
def checked_out(base: str, other: str | None, start: Path | None = None) -> Iterator[tuple[Side, Side, Path]]:
    """Both sides and a folder for what is built, all removed at the end, however it comes; SIGTERM is taken as Ctrl-C.

    `other` None is the working tree as it is now, edits included. `start` lies in the repository (default: here).
    Raises UsageError for a name that is no commit, KilnError where git cannot help.
    """
    root = Path(_git(start or Path.cwd(), "rev-parse", "--show-toplevel"))
    found = [(_commit(root, name) if name else None, name or WORKING_TREE) for name in (base, other)]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Scratch() as scratch, contextlib.ExitStack() as trees:
            _forget_lost(root)
            # Paths of one length: what hangs on the length of a path hangs on it on both sides alike.
            sides = [
                trees.enter_context(_side(root, commit, name, scratch.path / f"{_SIDE}{i}"))
                for i, (commit, name) in enumerate(found)
            ]
            built = scratch.path / "built"
            built.mkdir()
            yield sides[0], sides[1], built
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _side(root: Path, commit: str | None, name: str, path: Path) -> Iterator[Side]:
    tree = path / _TREE
    path.mkdir()
    try:
        if commit:
            _git(root, "worktree", "add", "--detach", "--force", str(tree), commit)
        else:
            for package in filter(lambda name: (root / name).is_dir(), PACKAGES):
                shutil.copytree(root / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
        title = f"{name} ({commit[:9]})" if commit and not commit.startswith(name) else name[:12]
        for package in PACKAGES:
            if not (tree / package).is_dir():
                raise KilnError(
                    f"{title} has no folder {package}: it is no commit of Kiln, or one from before its kernels"
                )
            (path / package).symlink_to(tree / package)
        (path / "harness").symlink_to(Path(harness.__file__).resolve().parent)
        yield Side(title, path)
    finally:
        if commit:
            with contextlib.suppress(KilnError):
                _git(root, "worktree", "remove", "--force", str(tree))


def _forget_lost(root: Path) -> None:
    """Have git forget the worktrees of runs that were killed, whose folders a later run has swept; nobody else's."""
    for line in _git(root, "worktree", "list", "--porcelain").splitlines():
        path = Path(line.removeprefix("worktree "))
        ours = path.name == _TREE and path.parent.name.startswith(_SIDE) and path.parent.parent.name.startswith(PREFIX)
        if ours and not path.exists():
            with contextlib.suppress(KilnError):  # another run was first
                _git(root, "worktree", "remove", "--force", str(path))


def _commit(root: Path, name: str) -> str:
    try:
        return _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except KilnError as error:
        raise UsageError(
            f'"{name}" is no commit of {root}; name one by branch, tag or id (shallow clone: git fetch --unshallow)'
        ) from error


def _git(folder: Path, *words: str) -> str:
    try:
        command = ["git", "-C", str(folder), "-c", "core.hooksPath=/dev/null", *words]  # no hook is meant by this
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        raise KilnError(f"git does not start ({error.strerror}): compare --commits needs it") from error
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise KilnError(f"git {words[0]} failed in {folder}: {why}")
    return done.stdout.strip()
