"""A bundle: a folder with a tuned config and all that an engine needs beside it, for kernels/engine/kiln.hpp.

    bundle.json              what is here, and what only Kiln knows: each entry's rules and the built-in defaults
    <name>-<checksum>.json   the tuned config, byte for byte
    sources/<sha256>.cl      flattened OpenCL C, named as the entries name it

bundle.json comes last and by a rename, and the other names change with their content: a reader has the old bundle or
the new one. Rules and defaults are trees of comparisons, see `kernels.traced`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kernels import tuned
from kernels.entry import make_entry, source_sha256
from kernels.spec import DeviceSheet, Family, Rule, Workload
from kernels.traced import Tree, trace
from kernels.tuned import ConfigError, Entry, KernelSection, Match, TunedConfig
from kernels.tuned.encode import encode_entry

FORMAT = "kiln-bundle"
VERSION = 1  # of bundle.json; kiln.hpp reads this one
MANIFEST = "bundle.json"
_SIZE = 256  # of every free dim where a built-in entry is made; what it says does not depend on them


def bundle(file: Path, folder: Path, families: Mapping[str, Family]) -> list[Path]:
    """Write the bundle of the tuned config `file`, or replace the one in `folder`; returns its files.

    Raises ConfigError, a sentence, where the document does not load, where it was tuned for other sources than those of
    `families`, or where the folder holds something else; OSError where the disk refuses.
    """
    config = tuned.load(file)
    document = file.read_bytes()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem)
    files = {f"{stem}-{hashlib.sha256(document).hexdigest()[:12]}.json": document}
    manifest = _manifest(config, next(iter(files)), document, families, file)
    for name in sorted(config.kernels):
        for text in _sources(config.kernels[name], families[name]):
            files[f"sources/{_sha256(text)}.cl"] = text.encode("utf-8")
    for name, family in manifest["families"].items():
        for built in family["built_in"]:
            text = families[name].variant(built["entry"]["variant"]).source
            files[f"sources/{_sha256(text)}.cl"] = text.encode("utf-8")
    manifest["sources"] = [{"sha256": Path(name).stem, "file": name} for name in sorted(files) if name.endswith(".cl")]
    files[MANIFEST] = (json.dumps(manifest, ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8")
    _place(folder, files)
    return [folder / name for name in files]


def _place(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files, the manifest last; a new folder appears whole, and a bundle loses what it no longer names."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder} holds something that is no bundle; give a new folder, or empty this one")
    stale = _named_files(folder) - set(files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder if folder.is_dir() else folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (fresh / "sources").mkdir(parents=True, exist_ok=True)
        for name, content in files.items():  # the manifest is the last
            temporary = fresh / f".{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(fresh / name)
        if fresh is not folder:
            fresh.rename(folder)
    finally:
        (fresh / f".{os.getpid()}.tmp").unlink(missing_ok=True)
        if fresh is not folder:
            shutil.rmtree(fresh, ignore_errors=True)
    for name in stale:
        (folder / name).unlink(missing_ok=True)


def _named_files(folder: Path) -> set[str]:
    """What the manifest in a folder names: the files that are a bundle's, and nobody else's."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        names = {str(manifest["document"]["file"]), *(str(item["file"]) for item in manifest["sources"])}
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
    ):  # none there, or a damaged one: then nothing is known to be ours
        return set()
    return {name for name in names if ".." not in name and not name.startswith("/")}


def _manifest(
    config: TunedConfig, name: str, document: bytes, families: Mapping[str, Family], file: Path
) -> dict[str, Any]:
    found = {}
    for kernel, section in sorted(config.kernels.items()):
        if kernel not in families:
            raise ConfigError(f"{file}: this Kiln has no kernel {kernel}; bundle with the Kiln that wrote it")
        family = families[kernel]
        _check_version(section, family, file)
        found[kernel] = _family(section, family, config.device.sheet)
    return {
        "format": FORMAT,
        "version": VERSION,
        "document": {"file": name, "sha256": hashlib.sha256(document).hexdigest()},
        "families": found,
    }


def _check_version(section: KernelSection, family: Family, file: Path) -> None:
    """Every entry is of a variant, source and ABI of this Kiln."""
    again = "tune again, or bundle with the Kiln that wrote it"
    if [(arg.name, arg.role) for arg in section.abi.args] != [(arg.name, arg.role) for arg in family.abi.args] or (
        section.abi.version != family.abi.version
    ):
        raise ConfigError(f"{file}: kernel {family.name} speaks another ABI than this Kiln's; {again}")
    variants = {variant.name: variant for variant in family.variants}
    for entry in section.entries:
        where = f'{file}: kernel {family.name}, entry "{entry.id}"'
        if entry.variant not in variants:
            raise ConfigError(f"{where} is of variant {entry.variant}, which this Kiln has not; {again}")
        if entry.source_sha256 != source_sha256(variants[entry.variant]):
            raise ConfigError(f"{where} was tuned for another source of variant {entry.variant}; {again}")


def _sources(section: KernelSection, family: Family) -> Iterator[str]:
    for name in sorted({entry.variant for entry in section.entries}):
        yield family.variant(name).source


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


# ---------------------------------------------------------------- what only Kiln knows of a family


def _family(section: KernelSection, family: Family, sheet: DeviceSheet) -> dict[str, Any]:
    free = tuple(dim for dim in family.dims if dim not in family.fixed)
    matches: list[Match] = []
    for entry in section.entries:
        if entry.match not in matches:
            matches.append(entry.match)
    built: dict[str, Entry] = {}
    defaults = []
    for match in matches:
        workload = _workload(match, family)
        if workload is None:
            continue  # options that lack a dim which the family fixes: no workload has this match
        tree = trace(lambda w, s: json.dumps(family.default(w, s)), workload, free)
        defaults.append(
            {"match": _match(match), "tree": [_named(node, workload, family, sheet, built) for node in tree]}
        )
    rules: list[dict[str, Any]] = []  # each once; entries name theirs by number

    def numbers(entry: Entry) -> list[int]:
        mine = _rules(entry, family, free)
        rules.extend(rule for rule in mine if rule not in rules)
        return [rules.index(rule) for rule in mine]

    return {
        "abi": {
            "version": family.abi.version,
            "args": [{"name": arg.name, "role": arg.role, "about": arg.about} for arg in family.abi.args],
        },
        "dims": list(family.dims),
        "fixed": list(family.fixed),
        "entry_rules": {entry.id: numbers(entry) for entry in section.entries},
        "built_in": [{"entry": encode_entry(entry), "rules": numbers(entry)} for entry in built.values()],
        "defaults": defaults,
        "rules": rules,
    }


def _match(match: Match) -> dict[str, Any]:
    d = match.dtypes
    return {
        "weights": match.weights,
        "dtypes": {"act": d.act, "compute": d.compute, "acc": d.acc, "cache": d.cache},
        "options": dict(sorted(match.options.items())),
    }


def _workload(match: Match, family: Family) -> Workload | None:
    """A workload of this match at sizes that stand for every size."""
    if not set(family.fixed) <= set(match.options):
        return None
    options = {name: value for name, value in match.options.items() if name not in family.fixed}
    dims = {}
    for dim in family.dims:
        low, high = family.bounds.get(dim, (1, None))
        dims[dim] = match.options[dim] if dim in family.fixed else max(low, min(_SIZE, high or _SIZE))
    return Workload(family.name, dims, match.dtypes, match.weights, options)


def _named(node: Any, workload: Workload, family: Family, sheet: DeviceSheet, built: dict[str, Entry]) -> Any:
    """A node of a default's tree with ids of built-in entries for configurations, which are made as they are met."""
    if isinstance(node, list):
        condition, *ends = node
        return [condition, *(_named(end, workload, family, sheet, built) for end in ends)]
    if not isinstance(node, str):
        return node
    key = f"{Match.of(workload, family)} {node}"
    if key not in built:
        name = f"built-in-{len(built)}"
        built[key] = make_entry(family, workload, json.loads(node), sheet, id=name, bucket=None, verification=None)
    return built[key].id


def _rules(entry: Entry, family: Family, free: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rules that may not hold somewhere, as `Space.illegal` asks them."""
    workload = _workload(entry.match, family)
    variant = family.variant(entry.variant)
    if workload is None:
        return [{"why": "its options have every dim that the family fixes", "tree": [False]}]
    if set(entry.params) != set(variant.params):
        return [{"why": f"parameters are exactly {', '.join(variant.params)}", "tree": [False]}]
    found = [
        {"why": f"{name} is one of {', '.join(map(str, values))}", "tree": [False]}
        for name, values in variant.params.items()
        if entry.params[name] not in values
    ]
    needs = tuple(Rule(f"the device has {name}", (), lambda c, w, s, name=name: s.has(name)) for name in variant.needs)  # type: ignore[misc]  # one name each
    for rule in (*needs, *variant.workload_rules, *family.workload_rules, *variant.rules):
        if not rule.prunes:
            tree = _holds(rule, entry, workload, free)
            if tree != [True]:
                found.append({"why": rule.why, "tree": tree})
    return found


def _holds(rule: Rule, entry: Entry, workload: Workload, free: tuple[str, ...]) -> Tree:
    return trace(lambda w, s: bool(rule.holds(entry.config, w, s)), workload, free)
