"""all-MiniLM-L6-v2 strung together from Kiln's kernels: which family does what, and which tensor is packed how.

One sentence a pass, all padded to one length, so that buffers are made once; attention hides the padding. Looking up
embeddings and the mean over tokens are left to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyopencl as cl
from engine import Engine
from minilm import Model, load, look_up, pool

from harness import runtimes
from harness.devices import slug
from harness.runner.describe import describe
from kernels.cache import CacheLayout
from kernels.layouts import Layout, pack_scales, pack_words
from kernels.spec import DTypes, WeightFormat, Workload
from reference.quantization import pack_nibbles, quantize

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Policy:
    """How activations are stored and computed with, and the format of the layers' matrices."""

    dtypes: DTypes
    weights: str

    @property
    def act(self) -> np.dtype[Any]:
        """The type that activations, biases and norms' weights are stored in."""
        return np.dtype(np.float16 if self.dtypes.act == "fp16" else np.float32)


class Encoder:
    """The model's weights packed on a device, and buffers for one sentence of `M` tokens, padding included."""

    def __init__(self, engine: Engine, model: Model, policy: Policy, M: int) -> None:
        self.engine, self.model, self.policy, self.M = engine, model, policy, M
        self.weights = {layer: self._pack(layer) for layer in model.layers_of_weights}
        wide = dict.fromkeys(("x", "r", "h", "sum", "q", "k", "v", "o"), model.hidden) | {"inner": model.inner}
        self.buffers = {name: engine.empty((M, columns), policy.act) for name, columns in wide.items()}
        self.positions = engine.upload(np.arange(M, dtype=np.int32))
        self.valid = engine.empty((M,), np.uint8)
        # A decoder keeps a cache for every layer and fills it token by token; here each layer fills the same one anew.
        concat, attention = engine.entry(self._concat()), engine.entry(self._attention())
        assert concat.layout == attention.layout
        self.cache = {
            name: engine.empty(CacheLayout.parse(layout).shape(M, model.heads, model.head_dim, "fp16"), np.float16)
            for name, layout in concat.layout.items()
        }

    def embed(self, ids: Sequence[int]) -> Array:
        """The embedding [hidden] of a sentence of up to M tokens."""
        padded = np.array([*ids, *[0] * (self.M - len(ids))])
        for name, rows in zip(("x", "r"), look_up(self.model, padded), strict=True):
            self.engine.write(self.buffers[name], rows.astype(self.policy.act))
        self.engine.write(self.valid, (np.arange(self.M) < len(ids)).astype(np.uint8))
        self._add_norm("embeddings.LayerNorm", "x", "r", "h")
        for layer in range(self.model.layers):
            self._layer(f"encoder.layer.{layer}")
        h = self.engine.read(self.buffers["h"], (self.M, self.model.hidden), self.policy.act)
        return pool(h[: len(ids)])

    def _layer(self, at: str) -> None:
        """h → h, by nine kernels."""
        for name in ("query", "key", "value"):
            self._linear(f"{at}.attention.self.{name}", "h", name[0])
        self._attend("q", "k", "v", "o")
        self._linear(f"{at}.attention.output.dense", "o", "r")
        self._add_norm(f"{at}.attention.output.LayerNorm", "r", "h", "x")
        self._linear(f"{at}.intermediate.dense", "x", "inner")
        self._linear(f"{at}.output.dense", "inner", "r")
        self._add_norm(f"{at}.output.LayerNorm", "r", "x", "h")

    # ------------------------------------------------------------ one kernel each

    def _linear(self, name: str, x: str, y: str) -> None:
        """y = x · wᵀ + bias, or GELU of it."""
        self.engine.run(self._product(name), x=self.buffers[x], y=self.buffers[y], **self.weights[name])

    def _add_norm(self, name: str, x: str, r: str, y: str) -> None:
        """y = LayerNorm(x + r)."""
        options = {"norm": "layer", "residual": True, "eps": self.model.eps}
        workload = Workload("rmsnorm", {"M": self.M, "N": self.model.hidden}, self.policy.dtypes, options=options)
        b = self.buffers
        self.engine.run(workload, x=b[x], r=b[r], y=b[y], sum=b["sum"], **self.weights[name])

    def _attend(self, q: str, k: str, v: str, o: str) -> None:
        """K and V into the cache, then o = softmax(q · Kᵀ / √D) · V, head by head."""
        b = self.buffers
        self.engine.run(self._concat(), k_new=b[k], v_new=b[v], positions=self.positions, **self.cache)
        self.engine.run(self._attention(), q=b[q], o=b[o], valid=self.valid, **self.cache)

    # ------------------------------------------------------------ what they are asked

    def _product(self, name: str) -> Workload:
        N, K = self.model.linear(name)[0].shape
        options = {"bias": True} | ({"act": "gelu"} if name.endswith("intermediate.dense") else {})
        return Workload("gemm_prefill", {"M": self.M, "N": N, "K": K}, self.policy.dtypes, self.policy.weights, options)

    def _concat(self) -> Workload:
        return self._cached("kv_concat")

    def _attention(self) -> Workload:
        return self._cached("flash_attention", padding=True)

    def _cached(self, family: str, **options: bool) -> Workload:
        """The M new positions are all T that the cache has, and all S that it has room for."""
        M, H = self.M, self.model.heads
        dims = {"M": M, "T": M, "H": H, "G": H, "D": self.model.head_dim, "S": M}
        return Workload(family, dims, replace(self.policy.dtypes, cache="fp16"), options=options)

    def _pack(self, name: str) -> dict[str, cl.Buffer]:
        """A layer's weights by their names in the ABI, matrices in the layout that the entry for them reads."""
        w, b = self.model.linear(name)
        if w.ndim == 1:
            tensors = {"w": w.astype(self.policy.act), "b": b.astype(self.policy.act)}
        else:
            layout = Layout.parse(self.engine.entry(self._product(name)).layout["w"])
            tensors = {**packed(w, self.policy.weights, layout), "bias": b.astype(self.policy.act)}
        return {part: self.engine.upload(array) for part, array in tensors.items()}


def packed(w: Array, form: str, layout: Layout) -> dict[str, Array]:
    """A matrix [N, K], quantised to fp16 or a 4-bit format and arranged: words `w`, and `sb` where it has groups."""
    weights = WeightFormat.parse(form)
    quantized = quantize(w, weights.kind, weights.group)
    if quantized.scale is None or quantized.bias is None:
        return {"w": pack_words(quantized.codes, layout)}
    return {
        "w": pack_words(pack_nibbles(quantized.codes), layout),
        "sb": pack_scales(quantized.scale, quantized.bias, layout.panel),
    }


def embed_on(driver: str, device: str, sentences: Sequence[str], policies: Sequence[Policy]) -> list[Array]:
    """Embeddings [sentences, hidden] for each policy, on the device that `slug` calls so.

    To be called in a process of its own: drivers are loaded for good, and one that crashes takes its process with it.
    """
    runtimes.prepare(driver)
    devices = [d for platform in cl.get_platforms() for d in platform.get_devices()]
    engine = Engine(next(d for d in devices if slug(describe(d)) == device))
    model = load()
    ids = [model.words.encode(sentence) for sentence in sentences]
    M = max(map(len, ids))
    encoders = (Encoder(engine, model, policy, M) for policy in policies)
    return [np.stack([encoder.embed(each) for each in ids]) for encoder in encoders]
