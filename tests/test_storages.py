"""What `--storage` may name, and the sentence for each way in which it does not work."""

import contextlib
import sqlite3
import sys
import threading
from pathlib import Path

import optuna
import pytest

from harness.errors import KilnError, UsageError
from tuner import storages
from tuner.cli import main
from tuner.storages import check, open_storage, shown, speaking


@pytest.mark.parametrize("url", ["journal:a.log", "journal:/x/a.log", "grpc://host:13000", "sqlite:///a.db"])
def test_what_can_be_a_storage_passes(url: str) -> None:
    check(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("shared.log", "journal:PATH"),
        ("journal:", "journal:PATH"),
        ("postgresql", "postgresql+psycopg://"),
        ("grpc://host", "grpc://HOST:PORT"),
        ("grpc://host:port", "grpc://HOST:PORT"),
        ("grpc://host:1/path", "grpc://HOST:PORT"),
    ],
)
def test_what_cannot_is_wrong_usage(url: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--storage", url]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_an_unknown_database_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no database that SQLAlchemy knows"):
        open_storage("nonsense://host/db")


def test_a_database_of_another_optuna_is_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    optuna.storages.get_storage(url)
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")
    with pytest.raises(KilnError, match="cannot be used"):
        open_storage(url)


def test_a_file_that_is_something_else_is_wrong_usage(tmp_path: Path) -> None:
    for text in ("not JSON\n", '{"kind": "study"}\n'):
        (tmp_path / "a.log").write_text(text)
        with pytest.raises(UsageError, match="no journal of Optuna's"):
            open_storage(f"journal:{tmp_path / 'a.log'}")
        assert (tmp_path / "a.log").read_text() == text


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KilnError, match=r"does not work .*Not a directory|does not work .*File exists"):
        open_storage(f"journal:{tmp_path / 'file' / 'a.log'}")


def test_a_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(KilnError, match=r"needs psycopg, .*kiln-workbench\[scale\]"):
        open_storage("postgresql+psycopg://user@127.0.0.1:1/db")
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(KilnError, match=r"needs pymysql, .*pip install pymysql"):
        open_storage("mysql+pymysql://user@127.0.0.1:1/db")


def test_a_proxy_without_its_packages_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "_installed", lambda package: False)
    with pytest.raises(KilnError, match=r"kiln-workbench\[scale\]"):
        open_storage("grpc://127.0.0.1:1")


def test_nobody_at_the_other_end_is_a_sentence_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not here: pip install 'kiln-workbench[scale]'")
    with pytest.raises(KilnError, match="see that the server is up") as caught:
        open_storage("postgresql+psycopg://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nobody_behind_a_proxys_address_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("grpc", reason="grpcio is not here: pip install 'kiln-workbench[scale]'")
    monkeypatch.setattr(storages, "_READY_S", 0.2)
    with pytest.raises(KilnError, match="see that the server is up"):
        open_storage("grpc://127.0.0.1:1")


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql+psycopg://me:secret@host:5432/db") == "postgresql+psycopg://me:…@host:5432/db"
    assert shown("postgresql://me:se/cr@t@host/db") == "postgresql://me:…@host/db"
    assert shown("postgresql://me@host/db") == "postgresql://me@host/db"


def test_a_fault_of_ours_is_not_blamed_on_the_storage() -> None:
    with pytest.raises(ValueError, match="ours"), speaking("journal:a"):
        raise ValueError("ours")


def test_a_line_cut_by_a_power_loss_goes_with_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    storage = open_storage(f"journal:{path}")
    study = storage.create_new_study([storages.optuna.study.StudyDirection.MINIMIZE], "one")
    with path.open("a") as file:
        file.write('{"op_code": 4, "worker')
    storage.set_study_user_attr(study, "fact", 1)
    again = open_storage(f"journal:{path}")
    assert again.get_study_user_attrs(study) == {"fact": 1}
    assert path.read_bytes().endswith(b"\n")


def test_the_file_lock_keeps_others_out_and_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.touch()
    first, second = storages._FileLock(path), storages._FileLock(path)
    first.acquire()
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (second.acquire(), entered.set()))
    waiting.start()
    assert not entered.wait(0.05)
    first.close()  # as the end of its process does
    assert entered.wait(5)
    waiting.join()
    second.release()
