import sys
from pathlib import Path

import numpy as np
import pytest

from harness.buffers import Blob, BufferStore
from harness.supervisor import Refused, RunnerLost, Supervisor

FAKE = (sys.executable, str(Path(__file__).parent / "fake_runner.py"))


@pytest.fixture
def fake():
    with Supervisor(FAKE) as supervisor:
        yield supervisor


def blob(fill: int, size: int = 100) -> Blob:
    return Blob.of(np.full(size, fill, np.uint8))


def test_content_has_one_name_whatever_holds_it():
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    assert Blob.of(array).name == Blob.of(array.tobytes()).name
    assert Blob.of(array.T).name == Blob.of(np.ascontiguousarray(array.T)).name
    assert Blob.of(array).name != Blob.of(array.T).name
    assert Blob.of(array).size == 12


def test_content_crosses_once(fake):
    store = BufferStore(fake)
    name = store.ensure(blob(1))
    fake.fill(name, 100, b"\x07")  # behind the store's back, to see whether it sends again
    assert store.ensure(blob(1)) == name
    assert fake.get(name) == b"\x07" * 100
    assert store.held_bytes == 100


def test_a_fresh_runner_gets_it_again(fake):
    store = BufferStore(fake)
    name = store.ensure(blob(1))
    with pytest.raises(RunnerLost):
        fake.build("p", "exit 1")
    assert store.ensure(blob(1)) == name
    assert fake.get(name) == b"\x01" * 100
    assert store.held_bytes == 100


def test_the_least_recently_used_goes_first_and_copies_count(fake):
    store = BufferStore(fake, limit_bytes=1000)
    a, b, c = (store.ensure(blob(fill), copies=3) for fill in (1, 2, 3))
    store.turn()
    store.ensure(blob(1))
    d = store.ensure(blob(4), copies=2)
    assert [fake.have(name, 100) for name in (a, b, c, d)] == [True, False, True, True]
    assert store.held_bytes == 800


def test_what_this_turn_uses_stays_even_beyond_the_bound(fake):
    store = BufferStore(fake, limit_bytes=150)
    names = [store.ensure(blob(fill)) for fill in range(4)]
    assert all(fake.have(name, 100) for name in names)
    store.turn()
    store.ensure(blob(9))
    assert not any(fake.have(name, 100) for name in names)


def test_dropping_by_hand(fake):
    store = BufferStore(fake)
    name = store.ensure(blob(1))
    store.drop(name, "nobody")
    assert not fake.have(name, 100)
    assert store.held_bytes == 0


def test_all_goes_at_once(fake):
    store = BufferStore(fake)
    names = [store.ensure(blob(fill)) for fill in (1, 2)]
    store.clear()
    assert not any(fake.have(name, 100) for name in names)
    assert store.held_bytes == 0
    store.clear()


def test_a_runner_that_cannot_copy_is_told_from_one_that_did(fake):
    fake.fill("a", 100)
    with pytest.raises(Refused, match="too old to copy"):
        fake.copy("b", "a", 100)
