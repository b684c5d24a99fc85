"""A foreign program's main runs in a process that sees every driver; mistakes are sentences with their exit code."""

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import hosted, runtimes


def test_usage(capsys, tmp_path):
    assert hosted.main([]) == 2
    assert hosted.main(["--what"]) == 2
    assert hosted.main([str(tmp_path / "none.so")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("kiln: ") for line in lines] == [True] * 3
    assert "is not there; make engine-example builds it" in lines[-1]


def test_a_folder_for_the_loader(capsys, monkeypatch):
    drivers = (runtimes.Driver("pocl", "/lib/libpocl.so", "here"),)
    monkeypatch.setattr(runtimes, "find", lambda: runtimes.Runtimes(drivers, ()))
    assert hosted.main(["--folder"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert (folder / "pocl.icd").read_text() == "/lib/libpocl.so\n"
    shutil.rmtree(folder)
    monkeypatch.setattr(runtimes, "find", lambda: runtimes.Runtimes((), ()))
    assert hosted.main(["--folder"]) == 3
    assert "pip install 'kiln-workbench[cpu]'" in capsys.readouterr().err


def test_arguments_and_exit_codes_pass_through(tmp_path, capfd, monkeypatch):
    if not shutil.which("gcc"):
        pytest.skip("gcc is not here; install it with: apt-get install gcc")
    source = "#include <stdio.h>\nint main(int n, char **v) { puts(v[1]); fflush(stdout); return n + 10; }\n"
    library = tmp_path / "host.so"
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source, text=True, check=True)
    drivers = (runtimes.Driver("pocl", "/lib/libpocl.so", "here"),)
    monkeypatch.setattr(runtimes, "prepare", lambda: runtimes.Runtimes(drivers, ()))
    assert hosted.main([str(library), "bundle", "device"]) == 13
    assert capfd.readouterr().out == "bundle\n"
    (tmp_path / "text.so").write_bytes(b"no library")
    assert hosted.main([str(tmp_path / "text.so")]) == 2
