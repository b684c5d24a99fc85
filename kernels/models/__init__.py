"""Model sheets: the shapes of the models that are tuned for, as TOML, every value with its source and standing.

A value is `{ value = 2048, status = "checked", source = "config" }`: `checked` was seen in the named source, `to_check`
is public knowledge that nobody here has seen in one yet. `[sources]` says what each short name stands for.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal, TypeVar

Status = Literal["checked", "to_check"]
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu")  # x·σ(x), by erf, by its tanh approximation, x·σ(1.702 x)
NORMS = ("rms", "rms1p", "layer")  # RMSNorm, RMSNorm with weight 1 + w (Gemma), LayerNorm with bias
ROPES = ("half", "interleaved")  # dims (i, i + rotary/2) are a pair, or (2i, 2i + 1)
_T = TypeVar("_T", int, bool, str)


@dataclass(frozen=True)
class Provenance:
    """Where a value comes from, and whether it has been seen there."""

    status: Status
    source: str


@dataclass(frozen=True)
class Decoder:
    """The language model: blocks of attention and feed-forward, then a projection to the vocabulary."""

    hidden: int
    inter: int  # width of the feed-forward layer
    heads: int
    kv_heads: int
    head_dim: int
    layers: int
    vocab: int  # rows of lm_head, padding of the checkpoint included
    gated: bool  # feed-forward has a gate beside `up` (SwiGLU, GeGLU)
    act: str  # of ACTIVATIONS, in the feed-forward layer
    norm: str  # of NORMS
    rotary: int  # dims of a head that RoPE turns, from the first; 0 = positions enter elsewhere
    rope: str  # of ROPES: which dims are a pair
    tied: bool  # lm_head shares the embedding's weights; it is read once a token either way


@dataclass(frozen=True)
class Tower:
    """An encoder that sees all its tokens at once: a vision or text tower, in fp16 as the papers run it."""

    name: str
    hidden: int
    inter: int
    heads: int
    head_dim: int
    layers: int
    skip_last: int  # blocks at the end whose output nobody reads (features are taken from an earlier layer)
    tokens: int
    project: int  # width that the one pooled row is projected to after the last block, 0 = it is not
    act: str  # of ACTIVATIONS, in the feed-forward layer; its norms are LayerNorm
    causal: bool  # a token attends to earlier ones alone


@dataclass(frozen=True)
class Projector:
    """The layers between a vision tower and the decoder, applied to every kept token."""

    tokens: int
    linears: tuple[tuple[int, int], ...]  # (N, K) of each


@dataclass(frozen=True)
class ModelSheet:
    """Everything that a plan needs to know of a model."""

    name: str
    title: str
    about: str
    decoder: Decoder | None
    towers: tuple[Tower, ...]
    projector: Projector | None
    provenance: Mapping[str, Provenance]  # by key, e.g. "decoder.hidden"

    @property
    def to_check(self) -> tuple[str, ...]:
        """Keys of the values that nobody has seen in a source yet."""
        return tuple(key for key, value in self.provenance.items() if value.status == "to_check")


def model_names() -> tuple[str, ...]:
    """Names of the models with a sheet, sorted."""
    found = (item.name for item in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def load_model(name: str) -> ModelSheet:
    """Read one model's sheet. Raises ValueError naming the choices for a model that has none."""
    if name not in model_names():
        raise ValueError(f'unknown model "{name}"; choose one of {", ".join(model_names())}')
    return parse_model(name, (files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))


def parse_model(name: str, text: str) -> ModelSheet:
    """Read a sheet's text. Raises ValueError saying file, key and what is wrong."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}.toml is not TOML: {error}") from error
    return _Sheet(name, data).read()


class _Sheet:
    """One sheet being read: it remembers where it is, so that an error can say so."""

    def __init__(self, name: str, data: Mapping[str, Any]) -> None:
        self.name = name
        self.data = data
        self.sources = data.get("sources", {})
        self.provenance: dict[str, Provenance] = {}

    def read(self) -> ModelSheet:
        self._only("", self.data, {"title", "about", "sources", "decoder", "tower", "projector"})
        for key in ("title", "about"):
            if not isinstance(self.data.get(key), str):
                raise self._error(key, "should be a text")
        for key in ("sources", "decoder", "tower", "projector"):
            if not isinstance(self.data.get(key, {}), dict):
                raise self._error(key, "should be a table")
        decoder = self._decoder() if "decoder" in self.data else None
        towers = tuple(self._tower(name, table) for name, table in self.data.get("tower", {}).items())
        projector = self._projector() if "projector" in self.data else None
        if decoder is None and not towers:
            raise self._error("decoder", "is missing, and there is no tower either")
        if unused := sorted(set(self.sources) - {p.source for p in self.provenance.values()}):
            raise self._error(f"sources.{unused[0]}", "is the source of no value; remove it")
        return ModelSheet(
            name=self.name,
            title=self.data["title"],
            about=self.data["about"],
            decoder=decoder,
            towers=towers,
            projector=projector,
            provenance=MappingProxyType(self.provenance),
        )

    def _decoder(self) -> Decoder:
        table = self.data["decoder"]
        self._only("decoder", table, set(Decoder.__dataclass_fields__))
        sizes = ("hidden", "inter", "heads", "kv_heads", "head_dim", "layers", "vocab")
        decoder = Decoder(
            **{key: self._value("decoder", table, key, int) for key in sizes},
            gated=self._value("decoder", table, "gated", bool),
            tied=self._value("decoder", table, "tied", bool),
            act=self._choice("decoder", table, "act", ACTIVATIONS),
            norm=self._choice("decoder", table, "norm", NORMS),
            rotary=self._value("decoder", table, "rotary", int),
            rope=self._choice("decoder", table, "rope", ROPES),
        )
        if decoder.rotary > decoder.head_dim or decoder.rotary % 2:
            raise self._error(
                "decoder.rotary", f"{decoder.rotary} is not an even part of the head's {decoder.head_dim}"
            )
        if decoder.heads % decoder.kv_heads:
            raise self._error("decoder.kv_heads", f"{decoder.kv_heads} does not divide the {decoder.heads} heads")
        return decoder

    def _tower(self, name: str, table: Any) -> Tower:
        where = f"tower.{name}"
        if not isinstance(table, dict):
            raise self._error(where, "should be a table")
        sizes = ("hidden", "inter", "heads", "head_dim", "layers", "tokens")
        extras = ("skip_last", "project")
        self._only(where, table, {*sizes, *extras, "act", "causal"})
        values = {key: self._value(where, table, key, int) for key in sizes}
        values |= {key: self._value(where, table, key, int) if key in table else 0 for key in extras}
        if values["heads"] * values["head_dim"] != values["hidden"]:
            raise self._error(f"{where}.head_dim", "times the heads is not the hidden size")
        act = self._choice(where, table, "act", ACTIVATIONS)
        return Tower(name=name, **values, act=act, causal=self._value(where, table, "causal", bool))

    def _projector(self) -> Projector:
        table = self.data["projector"]
        self._only("projector", table, {"tokens", "linears"})
        shapes = self._entry("projector", table, "linears")
        good = isinstance(shapes, list) and all(
            isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n > 0 for n in shape)
            for shape in shapes
        )
        if not good:
            raise self._error("projector.linears", "should be a list of [N, K] pairs of positive integers")
        return Projector(self._value("projector", table, "tokens", int), tuple((n, k) for n, k in shapes))

    def _value(self, where: str, table: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
        value = self._entry(where, table, key)
        if type(value) is not kind:  # bool is an int to isinstance
            raise self._error(f"{where}.{key}", f"should be {_KINDS[kind]}, found {value!r}")
        if kind is int and int(value) < 1:
            raise self._error(f"{where}.{key}", f"should be positive, found {value!r}")
        return value

    def _choice(self, where: str, table: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
        value = self._value(where, table, key, str)
        if value not in choices:
            raise self._error(f"{where}.{key}", f"is one of {', '.join(choices)}, not {value!r}")
        return value

    def _entry(self, where: str, table: Mapping[str, Any], key: str) -> Any:
        """The bare value of a `{ value, status, source }` table, its provenance noted down."""
        path = f"{where}.{key}"
        if key not in table:
            raise self._error(path, "is missing")
        entry = table[key]
        if not isinstance(entry, dict) or set(entry) != {"value", "status", "source"}:
            raise self._error(path, "should be { value = …, status = …, source = … }")
        if entry["status"] not in ("checked", "to_check"):
            raise self._error(path, f'has status {entry["status"]!r}; it is "checked" or "to_check"')
        if entry["source"] not in self.sources:
            raise self._error(path, f"names the source {entry['source']!r}, which [sources] does not list")
        self.provenance[path] = Provenance(entry["status"], entry["source"])
        return entry["value"]

    def _only(self, where: str, table: Mapping[str, Any], known: set[str]) -> None:
        if unknown := sorted(set(table) - known):
            path = f"{where}.{unknown[0]}" if where else unknown[0]
            raise self._error(path, f"is not a key of a model sheet; it has {', '.join(sorted(known))}")

    def _error(self, key: str, what: str) -> ValueError:
        return ValueError(f"{self.name}.toml: {key} {what}")


_KINDS = {int: "an integer", bool: "true or false", str: "a text"}
