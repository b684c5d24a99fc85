"""A tuned config is written whole or not at all, comes back as it was, and says where it is wrong."""

import copy
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import tuned_samples as samples
from tuned_samples import FEW, ONE, SPARE, WIDE, box, config, entry, workload

from kernels.spec import Ceil, ImageView, Workload, evaluate
from kernels.tuned import ConfigError, Deny, Match, dumps, load, loads, write
from kernels.tuned.encode import encode

SCHEMA = json.loads((Path(__file__).parent.parent / "results/schema/tuned-config.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def entries(document):
    return document["kernels"]["gemv_decode"]["entries"]


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "new" / "adreno750.json"
    write(path, config())
    loaded = load(path)
    assert not loaded.edited
    assert encode(loaded) == encode(config())
    assert {e.id for e in loaded.kernels["gemv_decode"].entries} == {"one", "wide", "few", "spare"}
    found = {e.id: e for e in loaded.kernels["gemv_decode"].entries}
    assert found["one"] == ONE
    assert found["wide"].launches == WIDE.launches
    assert loaded.device == samples.DEVICE
    assert [p.name for p in path.parent.iterdir()] == ["adreno750.json"]  # no temporary file stays


def test_the_same_config_gives_the_same_bytes(tmp_path):
    one, other = config(ONE, WIDE, FEW, SPARE), config(SPARE, FEW, WIDE, ONE, default="spare")
    assert dumps(one) == dumps(other)
    assert dumps(loads(dumps(one))) == dumps(one)


def test_a_document_meets_the_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(json.loads(dumps(config())))
    predicted = config(entry("p", box((1, 16), (1, None)), predicted=True))
    document = json.loads(dumps(predicted))
    assert document["evidence"] == "predicted"
    VALIDATOR.validate(document)


def test_every_field_is_described_in_the_schema():
    def walk(schema, path):
        for name, field in schema.get("properties", {}).items():
            if "oneOf" not in path:
                assert "description" in field, f"{path}.{name}"
            walk(field, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(schema.get(key), dict):
                walk(schema[key], f"{path}.{key}")
        for name, definition in schema.get("$defs", {}).items():
            walk(definition, f"{path}.$defs.{name}")

    walk(SCHEMA, "$")


def test_sizes_need_integer_arithmetic_alone():
    document = json.loads(dumps(config()))
    wide = next(e for e in entries(document) if e["id"] == "wide")
    assert wide["launches"][0]["grid"] == [[{"ceil": ["N", 1]}, 64]]
    assert wide["launches"][0]["args"][1] == {
        "image": {"of": "w", "channels": "RGBA", "type": "uint32", "width": [{"ceil": ["K", 32]}],
                  "height": [{"ceil": ["N", 1]}]}
    }  # fmt: skip
    assert evaluate((64, Ceil("N", 16)), {"N": 33}) == 64 * 3
    assert any(isinstance(arg, ImageView) for arg in WIDE.launches[0].args)
    assert wide["needs"] == {
        "work_group": 64, "local_bytes": 0, "extensions": ["cl_khr_image2d_from_buffer"], "image2d": [64, 16384],
        "multiple_of": {"K": 128},
    }  # fmt: skip


# ---------------------------------------------------------------- broken documents: the schema and the loader agree


def change(path, value):
    """A document with the value at a path such as `device.capabilities.kind` replaced; `...` deletes it."""

    def edit(document):
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            document = document[part]
        if value is ...:
            del document[last]
        else:
            document[last] = value

    return edit


E = "kernels.gemv_decode.entries.0"  # after sorting: the smallest bucket
BROKEN = [
    ("format", "kiln", "$.format should be"),
    ("format", ..., "$.format is missing"),
    ("schema_version", "2.0.0", "$.schema_version is 2.0.0, and this reader understands 1.x"),
    ("schema_version", "1", "$.schema_version should be three numbers"),
    ("schema_version", 1, "$.schema_version should be a text"),
    ("min_reader", "1.7", "$.min_reader is 1.7, and this reader is 1.0; update Kiln"),
    ("min_reader", "one", "$.min_reader should be two numbers"),
    ("content_sha256", ..., "$.content_sha256 should be a text"),
    ("evidence", "guessed", "$.evidence should be one of measured, predicted"),
    ("device", [], "$.device should be an object, found []"),
    ("device.vendor", "", "$.device.vendor should be a text that is not empty"),
    ("device.driver", None, "$.device.driver should be a text, found None"),
    ("device.raw.name", 3, "$.device.raw.name should be a text"),
    ("device.capabilities.kind", "tpu", "$.device.capabilities.kind should be one of gpu, cpu, other"),
    ("device.capabilities.local_bytes", "32k", "$.device.capabilities.local_bytes should be an integer"),
    ("device.capabilities.local_bytes", True, "local_bytes should be an integer of at least 0, found True"),
    ("device.capabilities.local_bytes", -1, "local_bytes should be an integer of at least 0, found -1"),
    ("device.capabilities.max_alloc_bytes", 2**53, "max_alloc_bytes should be at most 9007199254740991, found 9007"),
    ("device.capabilities.max_alloc_bytes", 1e300, "max_alloc_bytes should be at most 9007199254740991, found 1e+300"),
    ("device.capabilities.image2d", [1], "$.device.capabilities.image2d should have 2 items, found 1"),
    ("device.capabilities.image2d", [1, 0], "$.device.capabilities.image2d[1] should be an integer of at least 1"),
    ("device.capabilities.max_work_item_sizes", [], "should have at least 1 items"),
    ("device.capabilities.extensions", ..., "$.device.capabilities.extensions is missing"),
    ("protocol", None, "$.protocol should be an object"),
    ("provenance", 3, "$.provenance should be an object"),
    ("ops", [], "$.ops should be an object"),
    ("ops.matmul", {}, "$.ops.matmul should be a list"),
    ("ops.matmul.0.weights", "int3", "$.ops.matmul[0].weights is an unknown weight format"),
    ("kernels", {}, "$.kernels has no kernel"),
    ("kernels.gemv_decode.abi.version", 0, "abi.version should be an integer of at least 1"),
    ("kernels.gemv_decode.abi.args.0.role", "in", "$.kernels.gemv_decode.abi.args[0].role should be one of"),
    ("kernels.gemv_decode.default", ..., "$.kernels.gemv_decode.default is missing"),
    ("kernels.gemv_decode.deny", None, "$.kernels.gemv_decode.deny should be a list"),
    ("kernels.gemv_decode.deny", [{"params": {}, "compiler": ["E031"], "why": "x"}], "a comparison like >=E031.38"),
    ("kernels.gemv_decode.deny", [{"params": {"A": []}, "compiler": [], "why": "x"}], "deny[0].params.A should be a"),
    ("kernels.gemv_decode.entries", [], "entries should have at least 1 items"),
    (f"{E}.id", "", "id should be a text that is not empty"),
    (f"{E}.match.weights", "int4/g100", "match.weights is an unknown weight format"),
    (f"{E}.match.dtypes.act", "bf16", "match.dtypes.act should be one of fp16, fp32, found 'bf16'"),
    (f"{E}.match.dtypes.cache", "fp32", "match.dtypes.cache should be one of fp16, int8, int4"),
    (f"{E}.match.options", {"a": [1]}, "match.options.a should be a number, a text"),
    (f"{E}.bucket.M", [1], "bucket.M should have 2 items, found 1"),
    (f"{E}.bucket.M", [0, 4], "bucket.M[0] should be an integer of at least 1"),
    (f"{E}.bucket.M", [None, 4], "bucket.M has no lower end"),
    (f"{E}.bucket.M", [1.5, 4], "bucket.M[0] should be an integer"),
    (f"{E}.params.WG", {}, "params.WG should be a number, a text"),
    (f"{E}.source_sha256", "12ab", "source_sha256 should be 64 hexadecimal digits"),
    (f"{E}.build_options", "-O2", "build_options should be a list"),
    (f"{E}.launches", [], "launches should have at least 1 items"),
    (f"{E}.launches.0.grid", [], "launches[0].grid should have 1 to 3 items"),
    (f"{E}.launches.0.grid.0", [], "launches[0].grid[0] should have at least 1 items"),
    (f"{E}.launches.0.grid.0.0", 0, "grid[0][0] should be an integer of at least 1"),
    (f"{E}.launches.0.grid.0.0", {"floor": ["N", 4]}, "grid[0][0].ceil is missing"),
    (f"{E}.launches.0.grid.0.0", {"ceil": ["N", 0]}, "grid[0][0].ceil[1] should be an integer of at least 1"),
    (f"{E}.launches.0.grid.0.0", {"ceil": ["N"]}, "grid[0][0].ceil should have 2 items"),
    (f"{E}.launches.0.grid.0.0", "N", "grid[0][0] should be an integer"),
    (f"{E}.launches.0.local", [0, 1], "launches[0].local[0] should be an integer of at least 1"),
    (f"{E}.launches.0.args.0", 7, "launches[0].args[0] should be an object"),
    (f"{E}.launches.0.args.0", {"image": {"of": "w"}}, "args[0].image.channels is missing"),
    (f"{E}.scratch", {}, "scratch should be a list"),
    (f"{E}.layout.w", 4, "layout.w should be a text"),
    (f"{E}.needs.work_group", 0, "needs.work_group should be an integer of at least 1"),
    (f"{E}.needs.multiple_of", {"K": "128"}, "needs.multiple_of.K should be an integer"),
    (f"{E}.evidence", "predicted", "evidence is predicted, which goes with a prediction and no stats"),
    (f"{E}.stats", None, "has neither stats nor prediction, where exactly one is right"),
    (f"{E}.prediction", {"ns": 1, "limited_by": "x", "model_version": "1"}, "has both stats and prediction"),
    (f"{E}.stats.median_ns", -1, "stats.median_ns should be a number of at least 0"),
    (f"{E}.stats.interval_ns", [1], "stats.interval_ns should have 2 items"),
    (f"{E}.stats.limited_by", "", "stats.limited_by should be a text that is not empty"),
    (f"{E}.verification", None, "verification should be an object"),
    (f"{E}.verification.shapes", [], "verification.shapes should have at least 1 items"),
    (f"{E}.verification.proven_on.half", "maybe", "proven_on.half should be one of native, emulated"),
    (f"{E}.verification.proven_on.subgroup", 0, "proven_on.subgroup should be an integer of at least 1"),
    (f"{E}.alternates", [1], "alternates[0] should be a text"),
]

# What a schema cannot say: relations between values
RELATIONS = [
    ("evidence", "predicted", "$.evidence is predicted, but the entries are measured"),
    ("ops.matmul.0.kernel", "gemm", 'op matmul routes to "gemm", which the document has no kernel for'),
    ("kernels.gemv_decode.default", "nobody", 'names "nobody" as default, which is no entry\'s id'),
    (f"{E}.id", "few", 'has two entries with the id "few"'),
    (f"{E}.alternates", ["nobody"], 'has the alternate "nobody", which is no other entry'),
    (f"{E}.bucket.M", [4, 2], "ends at 2, before it begins"),
    (f"{E}.bucket.M", [1, 2], "has overlapping buckets: entries"),
    (f"{E}.bucket.N", [1, 8000], "leaves a gap at"),
    (f"{E}.bucket", {"M": [1, 1]}, "with buckets in different dims"),
    (f"{E}.launches.0.local", [64], "local has 1 dimensions, the grid has 2"),
    (f"{E}.launches.0.args.0", "bias", "passes bias, which is neither an argument nor scratch"),
    (f"{E}.launches.0.grid.0.0", {"ceil": ["Q", 4]}, "has a size in Q, which is no dim of the kernel (K, M, N)"),
    (f"{E}.launches.0.args.0", "a\n\0b", "passes a??b, which is neither an argument nor scratch"),
    (f"{E}.needs.multiple_of", {"Z": 2}, "has its needs in Z, which is no dim"),
    (f"{E}.needs.multiple_of", {"\ufeffK": 2}, "has its needs in ?K, which is no dim"),
    (f"{E}.stats.interval_ns", [2, 1], "stats.interval_ns ends before it begins"),
    (f"{E}.verification.value", 1, "beyond its limit 1e-06: the entry is not proven"),
]


@pytest.mark.parametrize(("path", "value", "sentence"), BROKEN)
def test_broken_documents_are_refused_by_loader_and_schema(path, value, sentence):
    document = json.loads(dumps(config()))
    assert entries(document)[0]["id"] == "one"
    change(path, value)(document)
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        loads(json.dumps(document))
    assert "; " in str(caught.value)  # it says what to do next
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("path", "value", "sentence"), RELATIONS)
def test_broken_relations_are_refused(path, value, sentence):
    document = json.loads(dumps(config()))
    change(path, value)(document)
    assert VALIDATOR.is_valid(document)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        loads(json.dumps(document))


@pytest.mark.parametrize("value", [None, 3, "text", [], [1], True])
def test_a_document_that_is_no_object_is_refused(value):
    with pytest.raises(ConfigError, match=re.escape("$ should be an object")):
        loads(json.dumps(value))


@pytest.mark.parametrize(("path", "value"), [("device.capabilities.local_bytes", 4096.0), ("later", {"a": 1})])
def test_what_both_accept(path, value):
    document = json.loads(dumps(config()))
    change(path, value)(document)
    assert VALIDATOR.is_valid(document)
    assert loads(json.dumps(document)).edited


def test_every_single_removal_is_refused_alike_by_loader_and_schema():
    """Delete each field in turn: whatever the schema requires, the loader misses, and the other way round."""
    whole = json.loads(dumps(config(ONE, WIDE, FEW, SPARE, deny=(Deny({"WG": 64}, (">=E031.38",), "wrong"),))))

    def paths(value, path=()):
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in pairs:
            yield (*path, key)
            yield from paths(inner, (*path, key))

    free = {"protocol", "provenance", "params", "layout", "options", "multiple_of", "raw", "bucket"}
    checked = 0
    for path in paths(whole):
        if not isinstance(path[-1], str) or free & set(map(str, path[:-1])) or path[:-1] in (("ops",), ("kernels",)):
            continue
        document = copy.deepcopy(whole)
        inner = document
        for part in path[:-1]:
            inner = inner[part]
        del inner[path[-1]]
        if path == ("device", "capabilities", "vector_floats"):  # unknown in documents of schema 1.0
            assert VALIDATOR.is_valid(document)
            assert loads(json.dumps(document)).device.sheet.vector_floats == 0
            continue
        assert not VALIDATOR.is_valid(document), path
        with pytest.raises(ConfigError):
            loads(json.dumps(document))
        checked += 1
    assert checked > 100


# ---------------------------------------------------------------- files


def test_truncated_documents_are_refused_at_every_length(tmp_path):
    text = dumps(config())
    path = tmp_path / "a.json"
    for length in range(0, len(text) - 2, 97):
        path.write_text(text[:length], encoding="utf-8")
        with pytest.raises(ConfigError, match=re.escape(str(path))) as caught:
            load(path)
        assert "restore the file" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the document ends in the middle"),
        (b"\xff\xfe{}", "is not UTF-8 text"),
        (b"hello", "is not JSON"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "holds a number too long"),
        (b'{"a": 9223372036854775808}', "holds a number too long"),
        (b'{"a": 1e999}', "holds a number too long"),
        (b'{"a": "\\ud800"}', "holds half of a character"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "nested too deeply"),
        (b'{"a": NaN}', "holds NaN, which JSON has no form for"),
        (b'{"format": 1, "format": 2}', 'has "format" twice'),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_document(tmp_path, content, sentence):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load(path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(ConfigError, match="is not there; make it with python -m tuner --out"):
        load(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)


def test_a_hand_edit_is_noticed():
    text = dumps(config())
    edited = loads(text.replace('"median_ns": 123456.5', '"median_ns": 99.0'))
    assert edited.edited
    assert not loads(json.dumps(json.loads(text))).edited  # spaces are not content


# ---------------------------------------------------------------- what may not be written


def test_overlaps_and_gaps_are_named():
    half = replace(ONE, id="half", bucket=box((1, 1), (1, 4095)))
    with pytest.raises(ConfigError, match='overlapping buckets: entries "half" and "one"'):
        dumps(config(ONE, half, SPARE))
    # An option of true and one of 1 are one match, as they are when an entry is looked for
    twins = [
        replace(ONE, id=name, match=replace(ONE.match, options={"gated": value}), alternates=())
        for name, value in (("a", True), ("b", 1))
    ]
    with pytest.raises(ConfigError, match='overlapping buckets: entries "b" and "a"'):
        dumps(config(*twins, SPARE))
    other = replace(ONE, id="other", bucket=box((1, 1), (9000, None)))
    with pytest.raises(ConfigError, match=r'leaves a gap at .*N 8192…8999.*beside entries "one" and "other"'):
        dumps(config(ONE, other, SPARE))
    # Two boxes that touch at a corner leave the two others free
    corner = [replace(ONE, id="a", bucket=box((1, 1), (1, 10))), replace(ONE, id="b", bucket=box((2, 2), (11, 20)))]
    with pytest.raises(ConfigError, match="leaves a gap"):
        dumps(config(*corner, SPARE))


def test_a_gap_among_many_dims_is_found_at_once():
    """The grid of all edges of these buckets has 24^12 cells."""
    section = config().kernels["gemv_decode"]
    dims = [f"D{i}" for i in range(12)]
    args = (*(arg for arg in section.abi.args), *(replace(section.abi.args[-1], name=dim) for dim in dims))
    many = [
        replace(ONE, id=f"e{i}", alternates=(), bucket=dict.fromkeys(dims, (10 * i + 1, 10 * i + 5))) for i in range(12)
    ]
    wide = replace(section, abi=replace(section.abi, args=args), entries=(*many, SPARE), default="spare")
    with pytest.raises(ConfigError, match=r'leaves a gap at D0 1…5, .*D9 6…10, beside entries "e0" and "e1"'):
        dumps(replace(config(), kernels={"gemv_decode": wide}))


def test_other_matches_have_buckets_of_their_own():
    e0m4 = entry("e", box((1, 16), (1, None)), job=workload(weights="e0m4/g128"))
    loads(dumps(config(ONE, WIDE, FEW, e0m4, SPARE)))
    wrong = replace(ONE, alternates=("e",))
    with pytest.raises(ConfigError, match='entry "one" has the alternate "e", which is for other jobs'):
        dumps(config(wrong, WIDE, FEW, e0m4, SPARE))


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (replace(ONE, prediction=samples.Prediction(1.0, "x", "1")), "has both stats and prediction"),
        (replace(ONE, stats=None), "has neither stats nor prediction"),
        (replace(ONE, verification=None), "verification should be an object"),
        (replace(ONE, params={"WG": math.nan}), "holds a value that JSON has no form for"),
        (replace(ONE, params={"WG": object()}), "holds a value that JSON has no form for"),
        (replace(ONE, match=Match("int5", ONE.match.dtypes)), "match.weights is an unknown weight format"),
    ],
)
def test_wrong_entries_are_not_written(tmp_path, bad, sentence):
    path = tmp_path / "a.json"
    write(path, config())
    before = path.read_bytes()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        write(path, config(bad, WIDE, FEW, SPARE))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_write_leaves_the_old_document(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write(path, config())
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, config(ONE, SPARE))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_dims_that_a_family_fixes_are_matched_exactly():
    workload = Workload("gemv_decode", {"M": 1, "N": 2, "K": 256}, ONE.match.dtypes, "int4/g128", {"gated": True})
    assert Match.of(workload, samples.FAMILY).options == {"gated": True}
    assert Match.of(workload, replace(samples.FAMILY, fixed=("K",))).options == {"gated": True, "K": 256}


COMMITTED = sorted((Path(__file__).parent.parent / "results").glob("*.json"))


PREDICTED = ("adreno750", "mali-g720")  # of devices that nobody had at hand


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_documents_load_meet_the_schema_and_say_what_they_rest_on(path):
    document = load(path)
    VALIDATOR.validate(json.loads(path.read_text("utf-8")))
    assert not document.edited
    assert document.evidence == ("predicted" if path.stem in PREDICTED else "measured")
    every = [one for section in document.kernels.values() for one in section.entries]
    assert {one.evidence for one in every} == {document.evidence}
    assert all(one.verification for one in every)
    assert {route.kernel for route in document.ops["matmul"]} == {"gemv_decode", "gemm_prefill"}
