"""A tuned config to JSON values, in the order in which a person reads them and always the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from kernels.spec import Ceil, ImageView, Size
from kernels.tuned.nouns import FORMAT, Bucket, DeviceFacts, Entry, KernelSection, TunedConfig


def encode(config: TunedConfig) -> dict[str, Any]:
    """The document without its checksum: plain JSON values in a fixed order."""
    return {
        "format": FORMAT,
        "schema_version": config.schema_version,
        "min_reader": config.min_reader,
        "evidence": config.evidence,
        "device": _encode_device(config.device),
        "protocol": _sorted(config.protocol),
        "provenance": _sorted(config.provenance),
        "ops": {
            op: [{"kernel": r.kernel, "weights": r.weights, "bucket": _encode_bucket(r.bucket)} for r in routes]
            for op, routes in sorted(config.ops.items())
        },
        "kernels": {name: _encode_section(section) for name, section in sorted(config.kernels.items())},
    }


def _encode_device(device: DeviceFacts) -> dict[str, Any]:
    sheet = device.sheet
    limits = {f.name: getattr(sheet, f.name) for f in fields(sheet) if f.name not in ("name", "vendor", "denied")}
    limits["extensions"] = sorted(sheet.extensions)
    return {
        "vendor": device.vendor,
        "family": device.family,
        "model": device.model,
        "driver": device.driver,
        "compiler": device.compiler,
        "raw": _sorted(device.raw),
        "capabilities": {name: list(v) if isinstance(v, tuple) else v for name, v in limits.items()},
    }


def _encode_section(section: KernelSection) -> dict[str, Any]:
    ordered = sorted(section.entries, key=lambda e: (str(e.match), e.bucket is None, _bucket_order(e.bucket), e.id))
    return {
        "abi": {
            "version": section.abi.version,
            "args": [{"name": arg.name, "role": arg.role, "about": arg.about} for arg in section.abi.args],
        },
        "default": section.default,
        "deny": [{"params": _sorted(d.params), "compiler": list(d.compiler), "why": d.why} for d in section.deny],
        **({} if section.programs is None else {"programs": asdict(section.programs)}),
        "entries": [encode_entry(entry) for entry in ordered],
    }


def _bucket_order(bucket: Bucket | None) -> list[tuple[str, int]]:
    return sorted((dim, low) for dim, (low, _) in (bucket or {}).items())


def encode_entry(entry: Entry) -> dict[str, Any]:
    """One entry as JSON values."""
    d, n, s, p, v = entry.match.dtypes, entry.needs, entry.stats, entry.prediction, entry.verification
    return {
        "id": entry.id,
        "match": {
            "weights": entry.match.weights,
            "dtypes": {"act": d.act, "compute": d.compute, "acc": d.acc, "cache": d.cache},
            "options": _sorted(entry.match.options),
        },
        "bucket": None if entry.bucket is None else _encode_bucket(entry.bucket),
        "variant": entry.variant,
        "params": _sorted(entry.params),
        "source_sha256": entry.source_sha256,
        "build_options": list(entry.build_options),
        "launches": [
            {
                "entry": launch.entry,
                "grid": [encode_size(size) for size in launch.grid],
                "local": None if launch.local is None else list(launch.local),
                "args": [_encode_arg(arg) for arg in launch.args],
            }
            for launch in entry.launches
        ],
        "scratch": [{"name": s.name, "bytes": encode_size(s.bytes)} for s in entry.scratch],
        "layout": _sorted(entry.layout),
        "needs": {
            "work_group": n.work_group,
            "local_bytes": n.local_bytes,
            "extensions": sorted(n.extensions),
            "image2d": None if n.image2d is None else list(n.image2d),
            "multiple_of": _sorted(n.multiple_of),
        },
        "evidence": entry.evidence,
        "stats": None
        if s is None
        else {
            "median_ns": s.median_ns,
            "interval_ns": list(s.interval_ns),
            "default_ns": s.default_ns,
            "driver_local_ns": s.driver_local_ns,
            "percent_of_limit": s.percent_of_limit,
            "limited_by": s.limited_by,
            **({} if s.regret is None else {"regret": s.regret}),
        },
        "prediction": None if p is None else {"ns": p.ns, "limited_by": p.limited_by, "model_version": p.model_version},
        "verification": None
        if v is None
        else {
            "metric": v.metric,
            "value": v.value,
            "limit": v.limit,
            "shapes": list(v.shapes),
            "proven_on": {"device": v.proven_on.device, "half": v.proven_on.half, "subgroup": v.proven_on.subgroup},
        },
        "alternates": list(entry.alternates),
    }


def encode_size(size: Size) -> list[Any]:
    """A product of factors: integers and `{"ceil": [dim, by]}`, e.g. `[64, {"ceil": ["N", 16]}]`."""
    return [{"ceil": [f.dim, f.by]} if isinstance(f, Ceil) else f for f in size]


def _encode_arg(arg: str | ImageView) -> Any:
    if isinstance(arg, str):
        return arg
    view = {"of": arg.of, "channels": arg.channels, "type": arg.type}
    return {"image": {**view, "width": encode_size(arg.width), "height": encode_size(arg.height)}}


def _encode_bucket(bucket: Bucket) -> dict[str, list[int | None]]:
    return {dim: [low, high] for dim, (low, high) in bucket.items()}


def _sorted(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items()))
