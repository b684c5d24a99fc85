"""What others have published of the models here, as far as their papers give numbers in text or tables.

`transformer_lite`: "Transformer-Lite: High-efficiency Deployment of Large Language Models on Mobile Phone GPUs",
arXiv 2403.20041; its engine on an OPPO Find X7 Ultra (Adreno 750) and X7 (Mali-G720), activations in half precision,
weights in 4 bits by groups, MLC-LLM on the same phones. `vlm_survey`: the survey of vision-language models on a OnePlus
13R, whose GPU it calls an Adreno 740; most of its runs left the GPU idle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Published:
    """One published figure of a whole phase."""

    model: str  # a model sheet's name
    phase: Literal["prefill", "decode", "image", "text"]
    prompt: int | None  # tokens, where the phase has any; None: not said
    ns: float  # of the whole phase; of one token for decoding
    engine: str
    device: str  # a sheet's name, or what ran it
    where: str

    @property
    def tokens_per_s(self) -> float | None:
        """Speed, for phases that are counted in tokens."""
        if self.phase == "decode":
            return 1e9 / self.ns
        return self.prompt / self.ns * 1e9 if self.phase == "prefill" and self.prompt else None


def _speed(
    model: str, phase: Literal["prefill", "decode"], prompt: int, tokens_per_s: float, engine: str, device: str
) -> Published:
    tokens = prompt if phase == "prefill" else 1
    where = "arXiv 2403.20041, §3.3"
    return Published(model, phase, prompt, tokens / tokens_per_s * 1e9, engine, device, where)


def _time(
    model: str,
    phase: Literal["prefill", "decode", "image", "text"],
    ms: float,
    engine: str,
    device: str,
    where: str,
    prompt: int | None = None,
) -> Published:
    return Published(model, phase, prompt, ms * 1e6, engine, device, where)


_LITE, _VLM = "Transformer-Lite", "OnePlus 13R survey"
FIGURES = (
    _speed("gemma-2b", "prefill", 128, 330, _LITE, "adreno750"),
    _speed("gemma-2b", "decode", 128, 30, _LITE, "adreno750"),
    _speed("gemma-2b", "prefill", 128, 275, _LITE, "mali-g720"),
    _speed("gemma-2b", "prefill", 128, 25, "MLC-LLM", "adreno750"),
    _speed("gemma-2b", "decode", 128, 11, "MLC-LLM", "adreno750"),
    _speed("chatglm2-6b", "prefill", 128, 121, _LITE, "adreno750"),
    _speed("chatglm2-6b", "decode", 128, 14, _LITE, "adreno750"),
    _speed("chatglm2-6b", "prefill", 128, 7, "FastLLM", "Snapdragon 8 Gen 3, CPU"),
    _speed("chatglm2-6b", "decode", 128, 1.2, "FastLLM", "Snapdragon 8 Gen 3, CPU"),
    _time("clip-vit-b-32", "image", 19.2, _LITE, "adreno750", "arXiv 2403.20041, table 3"),
    _time("clip-vit-b-32", "text", 13.9, _LITE, "adreno750", "arXiv 2403.20041, table 3"),
    _time("clip-vit-b-32", "image", 29.5, _LITE, "mali-g720", "arXiv 2403.20041, table 3"),
    _time("clip-vit-b-32", "text", 27.2, _LITE, "mali-g720", "arXiv 2403.20041, table 3"),
    _time("llava-1.5-7b", "image", 2399.0, "llama.cpp", "OnePlus 13R, CPU", f"{_VLM}, table 2"),
    _time("llava-1.5-7b", "prefill", 605 * 147.2, "llama.cpp", "OnePlus 13R, CPU", f"{_VLM}, §4.2", 605),
    _time("llava-1.5-7b", "decode", 171.7, "llama.cpp", "OnePlus 13R, CPU", f"{_VLM}, §4.2", 605),
    _time("llava-1.5-7b", "decode", 1860.0, "mllm", "OnePlus 13R, CPU", f"{_VLM}, §4.2"),
    _time("mobilevlm-3b", "image", 3053.0, "llama.cpp", "OnePlus 13R, CPU", f"{_VLM}, table 2"),
    _time("imp-v1.5-3b", "image", 18000.0, "MLC-Imp", "OnePlus 13R, GPU", f"{_VLM}, table 2"),
)


# What the paper's tables call the phones' processors, by the sheet of the GPU that is in them.
PROCESSORS = {"adreno750": "Snapdragon 8 gen 3", "mali-g720": "MTK Dimensity 9300"}


@dataclass(frozen=True)
class Gemv:
    """One row of table 1: one row of activations by 4-bit weights [K, N], groups of 128, by the profiling interface.

    The paper adds that a Mali's profiling times are usually longer than the real ones, and that the two processors'
    should not be compared.
    """

    device: str  # a sheet's name
    K: int
    N: int
    fp4_ns: float  # E0M4
    int4_ns: float
    acceleration: float  # as printed: INT4 over FP4


TABLE_1 = (
    Gemv("adreno750", 4096, 4096, 0.16e6, 0.16e6, 1.00),
    Gemv("adreno750", 4096, 11008, 0.39e6, 0.39e6, 1.00),
    Gemv("adreno750", 11008, 4096, 0.42e6, 0.42e6, 1.00),
    Gemv("mali-g720", 4096, 4096, 3.2e6, 5.0e6, 1.56),
    Gemv("mali-g720", 4096, 11008, 6.0e6, 8.3e6, 1.38),
    Gemv("mali-g720", 11008, 4096, 6.1e6, 8.1e6, 1.33),
)


@dataclass(frozen=True)
class Error:
    """One row of table 2: mean absolute errors of one matrix of Qwen1.5-4B-Chat's first layer, in the weights' unit."""

    matrix: str
    fp4: float
    int4: float
    ratio: float  # as printed: FP4 over INT4


TABLE_2 = (
    Error("q_proj", 0.002815, 0.002943, 0.957),
    Error("k_proj", 0.002577, 0.002699, 0.955),
    Error("v_proj", 0.0009236, 0.0009675, 0.955),
    Error("o_proj", 0.0007606, 0.0007963, 0.955),
    Error("up_proj", 0.001328, 0.001391, 0.955),
    Error("gate_proj", 0.001307, 0.001369, 0.955),
    Error("down_proj", 0.001323, 0.001386, 0.955),
)
TABLE_3 = tuple(figure for figure in FIGURES if figure.model == "clip-vit-b-32")
