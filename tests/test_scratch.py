import os
import subprocess
import sys
import tempfile

import pytest

from harness.errors import KilnError
from harness.scratch import Scratch


@pytest.fixture
def tmp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(path) -> None:
    os.utime(path, (1, 1))


def test_it_goes_when_told_and_with_its_host(tmp):
    with Scratch() as scratch:
        (scratch.path / "file").touch()
        assert scratch.path.parent == tmp
    assert not scratch.path.exists()
    scratch.remove()
    path = Scratch().path  # nobody holds it
    assert not path.exists()


KILLED = """
import os
from harness.scratch import Scratch
scratch = Scratch()
print(scratch.path, flush=True)
os.kill(os.getpid(), 9)
"""


def test_what_a_killed_host_left_is_swept(tmp):
    env = {**os.environ, "TMPDIR": str(tmp)}
    host = subprocess.run([sys.executable, "-c", KILLED], env=env, capture_output=True, text=True, check=False)
    left = host.stdout.strip()
    assert os.listdir(tmp) == [os.path.basename(left)]
    with Scratch():
        assert os.path.exists(left)  # too young to be sure
    age(left)
    with Scratch():
        assert not os.path.exists(left)


def test_what_a_living_host_uses_stays(tmp):
    with Scratch() as old:
        age(old.path)
        with Scratch():
            assert old.path.exists()


def test_no_room_for_it_is_a_sentence(tmp, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp / "nowhere"))
    with pytest.raises(KilnError, match="no temporary folder"):
        Scratch()


def test_what_is_not_ours_stays(tmp):
    stranger = tmp / "kiln-runner-without-lock"
    stranger.mkdir()
    age(stranger)
    with Scratch():
        assert stranger.exists()
