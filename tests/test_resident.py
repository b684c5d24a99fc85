"""harness/resident.py: what steps share on a device, without one."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import SHEET
from profiles import TINY, ask, tiny_steps

import kernels
from harness.candidate import Candidate
from harness.case import CaseStore
from harness.resident import Residence
from harness.step import Call, Step, steps


@dataclass
class Memory:
    """Stands in for a supervisor: remembers what is resident."""

    sizes: dict[str, int] = field(default_factory=dict)
    copied: list[str] = field(default_factory=list)

    def hello(self) -> Any:
        return SimpleNamespace(device={"mem_base_addr_align_bytes": 128})

    def put(self, name: str, data: memoryview) -> None:
        self.sizes[name] = len(data)

    def fill(self, name: str, size: int) -> None:
        self.sizes[name] = size

    def copy(self, name: str, source: str, size: int) -> None:
        assert self.sizes[source] >= size
        self.sizes[name] = size
        self.copied.append(name)


def candidate(call: Call) -> Candidate:
    family = kernels.families()[call.workload.family]
    return Candidate(family, call.workload, family.default(call.workload, SHEET))


def register(residence: Residence, cases: CaseStore, step: Step, call: Call, **params: int) -> None:
    one = candidate(call)
    one = Candidate(one.family, one.workload, {**one.config, **params})
    case = cases.case(one.family, one.workload)
    residence.register(step, call, one, case, cases.packed(one.family, one.workload, one.layouts))


def registered(room: int) -> Residence:
    residence, cases = Residence(room), CaseStore()
    for step in tiny_steps():
        for call in step.calls:
            register(residence, cases, step, call)
    return residence


@pytest.fixture(scope="module")
def loaded() -> tuple[Residence, Memory]:
    residence, memory = registered(1 << 30), Memory()
    total = residence.load(memory)  # type: ignore[arg-type]  # as much of a supervisor as it needs
    assert total == sum(memory.sizes.values())
    assert not residence.apart(), "the families' defaults agree on their layouts"
    return residence, memory


def buffers(residence: Residence, step: Step, name: str, layer: int) -> dict[str, str]:
    """Buffer by ABI argument of one call."""
    call = next(call for call in step.calls if call.name == name and call.layer == layer)
    refs = dict(residence._refs(step, call, candidate(call)))
    return {argument: str(ref["buf"]) for argument, ref in refs.items()}


def test_every_layer_has_weights_and_a_cache_of_its_own(loaded: tuple[Residence, Memory]) -> None:
    residence, _ = loaded
    decode = tiny_steps()[1]
    for name, argument in (("q", "w"), ("down", "w"), ("attention norm", "w"), ("attention", "k"), ("concat", "v")):
        assert len({buffers(residence, decode, name, layer)[argument] for layer in range(3)}) == 3, name
    assert len({buffers(residence, decode, "q", layer)["x"] for layer in range(3)}) < 3, "activations are reused"


def test_both_steps_read_one_copy_of_a_weight_and_of_the_cache(loaded: tuple[Residence, Memory]) -> None:
    residence, memory = loaded
    prefill, decode = tiny_steps()
    one, other = buffers(residence, prefill, "q", 1), buffers(residence, decode, "q", 1)
    assert (one["w"], one["sb"]) == (other["w"], other["sb"])
    both = buffers(residence, prefill, "gate/up", 2)
    assert both["w"] == buffers(residence, decode, "gate", 2)["w"]
    assert both["w_up"] == buffers(residence, decode, "up", 2)["w"]
    assert buffers(residence, prefill, "concat", 0)["k"] == buffers(residence, decode, "attention", 0)["k"]
    assert one["x"] != other["x"], "activations are each step's own"
    matrix = memory.sizes[one["w"]]
    assert matrix == 256 * 256 // 2


def test_layers_take_turns_where_memory_is_short() -> None:
    residence, memory = registered(1), Memory()
    residence.load(memory)  # type: ignore[arg-type]  # as above
    assert (residence.layers["decoder"].resident, residence.layers["decoder"].of) == (1, 3)
    assert not memory.copied
    decode = tiny_steps()[1]
    assert len({buffers(residence, decode, "q", layer)["w"] for layer in range(3)}) == 1
    each = residence.layers["decoder"].bytes_each
    assert residence.remarks(each - 1) == []
    assert residence.remarks(each) == ["the decoder's layers that fit (1) may stay in the caches: weights are not cold"]


def test_a_weight_that_is_read_in_two_layouts_is_there_twice_and_named() -> None:
    residence, cases = Residence(1 << 30), CaseStore()
    decode = tiny_steps()[1]
    for call, panel in ((decode.calls[1], 64), (decode.calls[2], 64), (decode.calls[1], 32)):
        register(residence, cases, decode, call, P=panel)
    assert residence.apart() == {"decoder": ["q.w", "q.sb"]}
    (told,) = residence.remarks(0)
    assert told.startswith("decoder: q.w, q.sb are read in more than one layout")


def test_launches_name_their_programs_and_stay_within_their_buffers(loaded: tuple[Residence, Memory]) -> None:
    residence, memory = loaded
    for step in tiny_steps():
        for call in step.calls:
            one = candidate(call)
            for launch in residence.launches(step, call, one):
                assert launch["program"] == one.program
                for arg in launch["args"]:
                    if "buf" in arg:
                        assert arg.get("offset", 0) < memory.sizes[arg["buf"]]
                        assert arg.get("offset", 0) % 128 == 0


def test_a_tensor_that_is_too_small_is_a_fault_of_the_step() -> None:
    residence, cases = Residence(1), CaseStore()
    small, large = (steps(TINY, ask(prompt))[0] for prompt in (20, 24))
    register(residence, cases, small, small.calls[0])
    with pytest.raises(ValueError, match=r"prefill layer 0 attention norm: x needs \d+ bytes of \d+"):
        register(residence, cases, large, large.calls[0])
