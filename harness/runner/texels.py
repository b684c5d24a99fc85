"""Stands in for an image where buffers cannot be seen as images: a buffer with its size and its texels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyopencl as cl

_DTYPE: dict[str, Any] = {"uint32": np.uint32, "uint16": np.uint16, "fp16": np.float16, "fp32": np.float32}


class Texels:
    """The buffer `made` holds 16 bytes (width, height, 0, 0) and then each texel as read_imageui or read_imagef gives
    it: four 32-bit channels, absent ones 0 and the fourth 1. A kernel can so be watched at every texel it reads."""

    def __init__(self, context: cl.Context, source: cl.Buffer, view: Mapping[str, Any]) -> None:
        self._source = source
        self._size = int(view["width"]), int(view["height"])
        self._channels = len(view["channels"])
        self._dtype = np.dtype(_DTYPE[view["type"]])
        self.made = cl.Buffer(context, cl.mem_flags.READ_ONLY, 16 * (1 + self._size[0] * self._size[1]))

    def make(self, queue: cl.CommandQueue) -> None:
        """Take over the source's present content; waits for what the queue has to do before."""
        count = self._size[0] * self._size[1]
        raw = np.empty((count, self._channels), self._dtype)
        cl.enqueue_copy(queue, raw, self._source)
        wide = np.dtype(np.float32 if self._dtype.kind == "f" else np.uint32)
        texels = np.zeros((1 + count, 4), wide)
        texels[1:, 3] = 1
        texels[1:, : self._channels] = raw
        texels[0].view(np.uint32)[:2] = self._size
        cl.enqueue_copy(queue, self.made, texels)
