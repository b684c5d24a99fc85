"""`python -m tuner bundle`: all that an engine needs in one folder, old or new, never half; other folders untouched."""

import hashlib
import json
from dataclasses import replace

import pytest
import tuned_samples as samples
from tuned_samples import FEW, ONE, SPARE, WIDE, config

from kernels.bundle import bundle
from kernels.tuned import ConfigError, load, write
from tuner.cli import main

SAMPLES = {"gemv_decode": samples.FAMILY}


@pytest.fixture
def document(tmp_path):
    path = tmp_path / "adreno750.json"
    write(path, config())
    return path


def test_a_bundle_is_complete(document, tmp_path):
    folder = tmp_path / "new" / "bundle"
    files = bundle(document, folder, SAMPLES)
    assert sorted(files) == sorted(path for path in folder.rglob("*") if path.is_file())
    manifest = json.loads((folder / "bundle.json").read_text("utf-8"))
    copied = folder / manifest["document"]["file"]
    assert copied.read_bytes() == document.read_bytes()
    assert manifest["document"]["sha256"] == hashlib.sha256(document.read_bytes()).hexdigest()
    sources = {item["sha256"]: (folder / item["file"]).read_bytes() for item in manifest["sources"]}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in sources.items())
    named = {entry.source_sha256 for entry in load(copied).kernels["gemv_decode"].entries}
    family = manifest["families"]["gemv_decode"]
    assert named | {item["entry"]["source_sha256"] for item in family["built_in"]} == set(sources)
    assert {family["rules"][number]["why"] for number in family["entry_rules"]["one"]} == {
        "K is a multiple of the group", "M is 1 to 16", "each part of K has 1,024",
    }  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]  # nothing temporary stays


def test_a_bundle_is_replaced_and_loses_what_it_no_longer_names(document, tmp_path):
    folder = tmp_path / "bundle"
    bundle(document, folder, SAMPLES)
    (folder / "notes.json").write_text("{}", encoding="utf-8")  # somebody's own, which stays
    before = {path.name for path in folder.rglob("*.*")}
    bundle(document, folder, SAMPLES)
    assert {path.name for path in folder.rglob("*.*")} == before
    write(document, config(ONE, SPARE))  # without WIDE, whose variant is the only one of its source
    bundle(document, folder, SAMPLES)
    after = {path.name for path in folder.rglob("*.*")}
    assert f"{WIDE.source_sha256}.cl" in before - after
    assert len(list(folder.glob("*.json"))) == 3
    (folder / "bundle.json").write_text("{", encoding="utf-8")
    bundle(document, folder, SAMPLES)
    assert {path.name for path in folder.rglob("*.*")} == after


def test_a_full_disk_leaves_the_old_bundle(document, tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    bundle(document, folder, SAMPLES)
    before = (folder / "bundle.json").read_bytes()
    write(document, config(ONE, SPARE))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        bundle(document, folder, SAMPLES)
    assert (folder / "bundle.json").read_bytes() == before
    assert len(list(folder.glob("*.json"))) == 2
    with pytest.raises(OSError, match="No space left"):
        bundle(document, tmp_path / "other", SAMPLES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adreno750.json", "bundle"]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (replace(ONE, source_sha256="0" * 64), 'entry "one" was tuned for another source of variant rows; tune again'),
        (replace(ONE, variant="retired"), 'entry "one" is of variant retired, which this Kiln has not; tune again'),
    ],
)
def test_other_versions_are_refused(tmp_path, bad, sentence):
    path = tmp_path / "a.json"
    write(path, config(bad, WIDE, FEW, SPARE))
    with pytest.raises(ConfigError, match=sentence):
        bundle(path, tmp_path / "bundle", SAMPLES)
    section = config().kernels["gemv_decode"]
    write(path, replace(config(), kernels={"gemv_decode": replace(section, abi=replace(section.abi, version=1))}))
    with pytest.raises(ConfigError, match="speaks another ABI"):
        bundle(path, tmp_path / "bundle", SAMPLES)
    write(path, replace(config(), ops={}, kernels={"softmax": section}))
    with pytest.raises(ConfigError, match="no kernel softmax"):
        bundle(path, tmp_path / "bundle", SAMPLES)
    assert not (tmp_path / "bundle").exists()


def test_the_command_ends_with_a_sentence(document, tmp_path, capsys):
    """The samples' sources are no real family's."""
    assert main(["bundle", str(document), str(tmp_path / "b")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"kiln: {document}: kernel gemv_decode speaks another ABI than this Kiln's; tune again")
    assert error.count("\n") == 1
    document.write_text("{", encoding="utf-8")
    assert main(["bundle", str(document), str(tmp_path / "b")]) == 1
    assert "ends in the middle" in capsys.readouterr().err
    assert main(["bundle", str(tmp_path / "none.json"), str(tmp_path / "b")]) == 2
    assert "is not there; make it with" in capsys.readouterr().err


def test_folders_that_are_no_bundles_stay_as_they_are(document, tmp_path):
    with pytest.raises(ConfigError, match="is a file; give a folder"):
        bundle(document, document, SAMPLES)
    with pytest.raises(ConfigError, match="holds something that is no bundle"):
        bundle(document, tmp_path, SAMPLES)
    (tmp_path / "empty").mkdir()
    bundle(document, tmp_path / "empty", SAMPLES)
    assert (tmp_path / "empty" / "bundle.json").is_file()
