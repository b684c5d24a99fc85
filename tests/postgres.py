"""A PostgreSQL server of one's own: Debian's, in a temporary folder, on a free port, gone when the test is over."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REMEDY = "PostgreSQL is not here; install it with: apt-get install -y postgresql"
_PROXY = "import optuna, sys; optuna.storages.run_grpc_proxy_server("
_PROXY += "optuna.storages.get_storage(sys.argv[1]), host='127.0.0.1', port=int(sys.argv[2]))"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binaries() -> Path:
    """Where initdb and postgres are: Debian keeps them out of PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    if beside:
        return Path(beside).parent
    pytest.fail(REMEDY)


class Postgres:
    """Use it as a context manager."""

    def __enter__(self) -> "Postgres":
        self._bin, self._port = binaries(), free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="kiln-postgres-"))
        # postgres refuses to run as root; the package made a user for it.
        self._user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        if self._user:
            os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "-D", str(self._folder / "data"), "-U", "kiln", "--auth=trust", "--no-sync")
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        options += " -c fsync=off"
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-l", str(self._folder / "log"), "-o", options, "start")
        self._running = True
        return self

    def _run(self, program: str, *words: str) -> None:
        who = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        done = subprocess.run(
            [self._bin / program, *words],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server keeps it: a pipe would never end
            stderr=subprocess.DEVNULL,
            check=False,
            **who,  # type: ignore[call-overload]
        )
        log = self._folder / "log"
        assert done.returncode == 0, f"{program}: {log.read_text() if log.exists() else done.returncode}"

    def database(self, name: str) -> str:
        """The URL of a new, empty database."""
        address = ["-h", "127.0.0.1", "-p", str(self._port), "-U", "kiln"]
        subprocess.run([self._bin / "createdb", *address, name], check=True)
        return f"postgresql+psycopg://kiln@127.0.0.1:{self._port}/{name}"

    @contextlib.contextmanager
    def proxy(self, name: str) -> Iterator[str]:
        """The URL of Optuna's gRPC proxy before a new database."""
        port = free_port()
        process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", _PROXY, self.database(name), str(port)])
        try:
            end = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < end, "the proxy does not start"
                assert process.poll() is None, "the proxy ended"
                time.sleep(0.1)
            yield f"grpc://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()

    def stop(self) -> None:
        """At once, as a server goes whose machine fails."""
        if self._running:
            self._running = False
            self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
