"""JSON values to a tuned config. Every type is checked, and an error says where.

What JSON Schema (results/schema) can say is checked here alike; a test holds the two together. Relations between values
are in `kernels.tuned.check`. Unknown fields are ignored: a document of a later minor version may have more.
"""

from __future__ import annotations

from typing import Any

from kernels.spec import Abi, Arg, Ceil, DeviceSheet, DTypes, ImageView, Launch, Scratch, Size, WeightFormat
from kernels.tuned.node import Node
from kernels.tuned.nouns import (
    FORMAT,
    READER,
    Deny,
    DeviceFacts,
    Entry,
    EntryStats,
    KernelSection,
    Match,
    Needs,
    Prediction,
    Programs,
    ProvenOn,
    Route,
    TunedConfig,
    Verification,
)


def decode(document: Any) -> TunedConfig:
    """The config that JSON values say. Raises ConfigError at the first thing that is not as the schema says."""
    root = Node(document, "$")
    if root.at("format").value != FORMAT:
        raise root.at("format").wrong(f'should be "{FORMAT}"', "give a document that Kiln wrote")
    version = root.at("schema_version").like(r"\d+\.\d+\.\d+", "three numbers with dots")
    if int(version.split(".")[0]) != READER[0]:
        raise root.at("schema_version").wrong(
            f"is {version}, and this reader understands {READER[0]}.x", "use the Kiln that wrote it, or tune again"
        )
    min_reader = root.at("min_reader").like(r"\d+\.\d+", "two numbers with a dot")
    if tuple(map(int, min_reader.split("."))) > READER:
        raise root.at("min_reader").wrong(
            f"is {min_reader}, and this reader is {READER[0]}.{READER[1]}", "update Kiln, or tune again"
        )
    config = TunedConfig(
        device=_device(root.at("device")),
        protocol=root.at("protocol").object(lambda node: node.value),
        provenance=root.at("provenance").object(lambda node: node.value),
        ops=root.at("ops").object(lambda node: node.each(_route)),
        kernels=root.at("kernels").object(_section),
        schema_version=version,
        min_reader=min_reader,
    )
    if not config.kernels:
        raise root.at("kernels").wrong("has no kernel")
    evidence = root.at("evidence").text("measured", "predicted")
    if evidence != config.evidence:
        raise root.at("evidence").wrong(f"is {evidence}, but the entries are {config.evidence}")
    return config


def _device(node: Node) -> DeviceFacts:
    limits, vendor, model = node.at("capabilities"), node.at("vendor").name(), node.at("model").name()
    numbers = ("max_work_group", "local_bytes", "max_alloc_bytes", "global_bytes", "compute_units", "cache_bytes",
               "image_pitch_texels", "image_base_texels")  # fmt: skip
    sheet = DeviceSheet(
        name=model,
        vendor=vendor,
        kind=limits.at("kind").text("gpu", "cpu", "other"),  # type: ignore[arg-type]  # one of the choices
        max_work_item_sizes=limits.at("max_work_item_sizes").each(Node.positive, least=1),
        image2d=limits.at("image2d").optional(_pair),
        subgroup_sizes=limits.at("subgroup_sizes").each(Node.positive),
        extensions=frozenset(limits.at("extensions").each(Node.name)),
        opencl_c=limits.at("opencl_c").each(Node.integer, least=2, most=2),  # type: ignore[arg-type]  # two items
        vector_floats=limits.at("vector_floats").integer() if limits.has("vector_floats") else 0,
        denied=(),  # what a driver gets wrong stands among each kernel's deny rules
        **{name: limits.at(name).integer() for name in numbers},
    )
    return DeviceFacts(
        vendor=vendor,
        family=node.at("family").name(),
        model=model,
        driver=node.at("driver").text(),
        compiler=node.at("compiler").text(),
        raw=node.at("raw").object(Node.text),
        sheet=sheet,
    )


def _pair(node: Node) -> tuple[int, int]:
    first, second = node.each(Node.positive, least=2, most=2)
    return first, second


def _route(node: Node) -> Route:
    return Route(node.at("kernel").name(), node.at("weights").optional(_weights), _bucket(node.at("bucket")))


def _weights(node: Node) -> str:
    try:
        return str(WeightFormat.parse(node.text()))
    except ValueError as error:
        raise node.wrong(f"is an {error}") from error


def _bucket(node: Node) -> dict[str, tuple[int, int | None]]:
    bucket = {}
    for dim, interval in node.items():
        low, high = interval.each(lambda end: end.optional(Node.positive), least=2, most=2)
        if low is None:
            raise interval.wrong("has no lower end (only the upper one may be null)")
        if high is not None and high < low:
            raise interval.wrong(f"ends at {high}, before it begins")
        bucket[dim] = (low, high)
    return bucket


def _section(node: Node) -> KernelSection:
    abi = node.at("abi")
    return KernelSection(
        abi=Abi(abi.at("version").positive(), abi.at("args").each(_arg)),
        entries=node.at("entries").each(decode_entry, least=1),
        default=node.at("default").name(),
        deny=node.at("deny").each(_deny),
        programs=_programs(node.at("programs")) if node.has("programs") else None,
    )


def _programs(node: Node) -> Programs:
    return Programs(
        node.at("most").positive(),
        node.at("count").positive(),
        node.at("worst_regret").number(),
        node.at("mean_regret").number(),
    )


def _arg(node: Node) -> Arg:
    role = node.at("role").text("input", "weight", "cache", "output", "inout", "dim")
    return Arg(node.at("name").name(), role, node.at("about").text())  # type: ignore[arg-type]  # one of the choices


def _deny(node: Node) -> Deny:
    bound = r"(>=|<=|==|<|>)[A-Za-z.-]*[0-9][A-Za-z0-9._-]*"
    return Deny(
        params=node.at("params").object(Node.scalar),
        compiler=node.at("compiler").each(lambda item: item.like(bound, "a comparison like >=E031.38")),
        why=node.at("why").name(),
    )


def decode_entry(node: Node) -> Entry:
    """One entry from its JSON value. Raises ConfigError."""
    match, dtypes, needs = node.at("match"), node.at("match").at("dtypes"), node.at("needs")
    evidence = node.at("evidence").text("measured", "predicted")
    stats, prediction = node.at("stats").optional(_stats), node.at("prediction").optional(_prediction)
    if (stats is None) == (prediction is None):
        which = "neither stats nor prediction" if stats is None else "both stats and prediction"
        raise node.wrong(f"has {which}, where exactly one is right")
    if (evidence == "measured") != (stats is not None):
        raise node.at("evidence").wrong(f"is {evidence}, which goes with {_BELONGS[evidence]}")
    return Entry(
        id=node.at("id").name(),
        match=Match(
            match.at("weights").optional(_weights),
            DTypes(
                act=dtypes.at("act").text("fp16", "fp32"),  # type: ignore[arg-type]  # choices, these three
                compute=dtypes.at("compute").text("fp32", "fp16", "int8"),  # type: ignore[arg-type]
                acc=dtypes.at("acc").text("fp32", "fp16", "int32"),  # type: ignore[arg-type]
                cache=dtypes.at("cache").optional(_cache),
            ),
            match.at("options").object(Node.scalar),
        ),
        bucket=node.at("bucket").optional(_bucket),
        variant=node.at("variant").name(),
        params=node.at("params").object(Node.scalar),
        source_sha256=node.at("source_sha256").like("[0-9a-f]{64}", "64 hexadecimal digits"),
        build_options=node.at("build_options").each(Node.name),
        launches=node.at("launches").each(_launch, least=1),
        scratch=node.at("scratch").each(lambda item: Scratch(item.at("name").name(), _size(item.at("bytes")))),
        layout=node.at("layout").object(Node.name),
        needs=Needs(
            work_group=needs.at("work_group").positive(),
            local_bytes=needs.at("local_bytes").integer(),
            extensions=needs.at("extensions").each(Node.name),
            image2d=needs.at("image2d").optional(_pair),
            multiple_of=needs.at("multiple_of").object(Node.positive),
        ),
        evidence=evidence,  # type: ignore[arg-type]  # one of the choices
        stats=stats,
        prediction=prediction,
        verification=_verification(node.at("verification")),
        alternates=node.at("alternates").each(Node.name),
    )


_BELONGS = {"measured": "stats and no prediction", "predicted": "a prediction and no stats"}


def _cache(node: Node) -> Any:
    return node.text("fp16", "int8", "int4")


def _launch(node: Node) -> Launch:
    grid = node.at("grid").each(_size, least=1, most=3)
    local = node.at("local").optional(lambda item: item.each(Node.positive, least=1, most=3))
    if local is not None and len(local) != len(grid):
        raise node.at("local").wrong(f"has {len(local)} dimensions, the grid has {len(grid)}")
    return Launch(node.at("entry").name(), grid, local, node.at("args").each(_launch_arg))


def _launch_arg(node: Node) -> str | ImageView:
    if isinstance(node.value, str):
        return node.name()
    image = node.at("image")
    return ImageView(
        of=image.at("of").name(),
        channels=image.at("channels").text("R", "RG", "RGBA"),  # type: ignore[arg-type]  # choices, these two
        type=image.at("type").text("uint32", "uint16", "fp16", "fp32"),  # type: ignore[arg-type]
        width=_size(image.at("width")),
        height=_size(image.at("height")),
    )


def _size(node: Node) -> Size:
    return node.each(_factor, least=1)


def _factor(node: Node) -> int | Ceil:
    if not isinstance(node.value, dict):
        return node.positive()
    ceil = node.at("ceil")
    dim, by = ceil.each(lambda item: item, least=2, most=2)
    return Ceil(dim.name(), by.positive())


def _stats(node: Node) -> EntryStats:
    low, high = node.at("interval_ns").each(Node.number, least=2, most=2)
    if low > high:
        raise node.at("interval_ns").wrong("ends before it begins")
    return EntryStats(
        median_ns=node.at("median_ns").number(),
        interval_ns=(low, high),
        default_ns=node.at("default_ns").optional(Node.number),
        driver_local_ns=node.at("driver_local_ns").optional(Node.number),
        percent_of_limit=node.at("percent_of_limit").optional(Node.number),
        limited_by=node.at("limited_by").optional(Node.name),
        regret=node.at("regret").number() if node.has("regret") else None,
    )


def _prediction(node: Node) -> Prediction:
    return Prediction(node.at("ns").number(), node.at("limited_by").name(), node.at("model_version").name())


def _verification(node: Node) -> Verification:
    where = node.at("proven_on")
    found = Verification(
        metric=node.at("metric").name(),
        value=node.at("value").number(),
        limit=node.at("limit").number(),
        shapes=node.at("shapes").each(Node.name, least=1),
        proven_on=ProvenOn(
            device=where.at("device").name(),
            half=where.at("half").text("native", "emulated"),  # type: ignore[arg-type]  # one of the choices
            subgroup=where.at("subgroup").optional(Node.positive),
        ),
    )
    if found.value > found.limit:
        raise node.at("value").wrong(f"is {found.value:g}, beyond its limit {found.limit:g}: the entry is not proven")
    return found
