"""harness/commits.py and its parts: worktrees that go away, kernels that do not fit, one real round on each device."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from harness import commits
from harness.checkouts import Side, checked_out
from harness.commits import Asked, Report, compare
from harness.devices import DeviceChoice
from harness.errors import KilnError, UsageError
from harness.peer import Peer
from harness.verdicts import Change, Failure, Finding, Measure, confirm

ROOT = Path(__file__).parent.parent
PACKAGES = ("kernels", "reference")


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *identity, "-C", str(folder), *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kernels and reference of this tree in a repository: `old` (no kernels), `good`, `broken`, `wrong`, `slow`."""
    path = tmp_path_factory.mktemp("repository")
    git(path, "init", "--quiet")
    (path / "README.md").write_text("to come\n")
    commit(path, "old")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, path / package, ignore=shutil.ignore_patterns("__pycache__"))
    commit(path, "good")
    rows = path / "kernels" / "rmsnorm" / "rows.cl"
    text = rows.read_text()
    rows.write_text(text.replace("inverse_root(square);", "2.0f * inverse_root(square);"))
    commit(path, "wrong")
    rows.write_text(text + "// the same\n")
    commit(path, "comment")
    (path / "kernels" / "spec.py").write_text("nothing = 0\n")
    commit(path, "broken")
    git(path, "checkout", "--quiet", "good")
    return path


def commit(path: Path, tag: str) -> None:
    git(path, "add", "-A")
    git(path, "commit", "--quiet", "-m", tag)
    git(path, "tag", tag)


def worktrees(path: Path) -> int:
    return len(git(path, "worktree", "list").splitlines())


# ---------------------------------------------------------------- checkouts


@pytest.mark.parametrize("end", [None, KilnError("no"), KeyboardInterrupt()])
def test_worktrees_go_away_however_it_ends(repository: Path, end: BaseException | None) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KilnError, KeyboardInterrupt))
        base, other, built = stack.enter_context(checked_out("good", "comment", repository))
        assert worktrees(repository) == 3
        rows = [(side.path / "kernels" / "rmsnorm" / "rows.cl").read_text() for side in (base, other)]
        assert rows[0] != rows[1]
        assert len(str(base.path)) == len(str(other.path))
        assert (base.path / "harness" / "side.py").exists()
        if end is not None:
            raise end
    assert worktrees(repository) == 1
    assert not base.path.exists()
    assert not built.exists()


def test_what_a_killed_run_left_is_forgotten_by_the_next_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    ours, users = tmp_path / "kiln-runner-x" / "side-0" / "tree", tmp_path / "on a disk that is not mounted now"
    for path in (ours, users):
        git(repository, "worktree", "add", "--detach", str(path), "good")
        shutil.rmtree(path)
    with checked_out("good", "good", repository):
        assert worktrees(repository) == 4
    assert worktrees(repository) == 2
    git(repository, "worktree", "prune")


def test_the_working_tree_is_copied_as_it_is(repository: Path) -> None:
    rows = repository / "kernels" / "rmsnorm" / "rows.cl"
    text = rows.read_text()
    try:
        rows.write_text(text + "// an edit\n")
        with checked_out("good", None, repository) as (base, other, _):
            assert other.name == "working tree"
            assert (base.path / "kernels/rmsnorm/rows.cl").read_text() == text
            assert (other.path / "kernels/rmsnorm/rows.cl").read_text().endswith("// an edit\n")
    finally:
        rows.write_text(text)


def test_names_that_are_no_commits_and_places_that_are_no_repositories(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='"nonsense" is no commit of'), checked_out("good", "nonsense", repository):
        pass
    with pytest.raises(UsageError, match='"--all" is no commit of'), checked_out("--all", None, repository):
        pass
    with pytest.raises(KilnError, match="git rev-parse failed in"), checked_out("HEAD", None, tmp_path):
        pass
    with pytest.raises(KilnError, match=r"old .* has no folder kernels"), checked_out("old", "good", repository):
        pass
    assert worktrees(repository) == 1


# ---------------------------------------------------------------- sides


def test_kernels_that_do_not_fit_this_harness_are_one_sentence(repository: Path) -> None:
    with checked_out("broken", "good", repository) as (broken, _, _):
        peer = Peer(broken)
        with pytest.raises(KilnError, match=r"the kernels of broken \(.*\) cannot be measured by this harness: Import"):
            peer.ask("plan")
        peer.close()


def test_a_request_that_fails_inside_is_one_sentence_too() -> None:
    peer = Peer(Side("here", ROOT))
    with pytest.raises(KilnError, match="the kernels of here cannot be measured by this harness: KeyError: 'models'"):
        peer.ask("plan")
    peer.close()


# ---------------------------------------------------------------- all of it, on each device

NORM = Asked("good", "comment", ("gemma-2b",), ("int4/g128",), ("rmsnorm",))


def run(repository: Path, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch, asked: Asked, count: int) -> Report:
    """A comparison whose deciding is cut to one session of the `count` lightest workloads."""

    def decide(workloads: Sequence[str], measure: Measure) -> Mapping[str, Finding]:
        taken = {workload: measure(workload, 1, True) for workload in workloads[-count:]}
        return {
            name: Finding(Change.BROKEN, log=got.log) if isinstance(got, Failure) else confirm(got, 0.5)
            for name, got in taken.items()
        }

    monkeypatch.setattr(commits, "decide_on", decide)
    monkeypatch.setattr(commits, "ROUNDS", commits.LEAST_ROUNDS)
    return compare(asked, device, lambda _: None, repository)


def test_two_commits_are_measured_in_turns(
    repository: Path, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = run(repository, device, monkeypatch, NORM, count=1)
    (measured,) = report.rows
    assert measured.finding is not None
    assert measured.finding.effect is not None
    assert measured.finding.control is not None
    assert measured.finding.effect.sessions == 1
    assert measured.finding.base_ns
    assert not measured.identical
    assert set(report.anchors) == {"read", "madd"}
    assert worktrees(repository) == 1


def test_identical_kernels_are_not_measured_and_wrong_ones_are_broken(
    repository: Path, device: DeviceChoice, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = run(repository, device, monkeypatch, Asked("good", None, *_most(NORM)), count=9)
    assert same.rows == ()
    assert all(one.identical for one in same.compared)
    assert len(same.compared) >= 6
    if device.slug == "cpu-pocl":  # elsewhere another variant may be the default
        wrong = run(repository, device, monkeypatch, Asked("good", "wrong", *_most(NORM)), count=1)
        (broken,) = wrong.worse
        assert broken.finding is not None
        assert "wrong_result" in broken.finding.log


def _most(asked: Asked) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...] | None]:
    return asked.models, asked.formats, asked.families
