"""A PostgreSQL of its own, wired up as docs/renewal.md says."""

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.services.mesh import Node
from tests.services.page import blocks, placed
from tests.services.program import environment, listens, running
from tests.support import eventually

USER = "postgres"
PAGES_PLACE = "/var/lib/postgresql/tls"


@dataclass(frozen=True)
class Database:
    """One server in `place`; it refuses to run as root, so it has a user of its own."""

    place: Path
    program: str
    initdb: str
    client: str

    @property
    def tls(self) -> Path:
        """Where the hook copies the pair to."""
        return self.place / "tls"

    @property
    def base(self) -> Path:
        """Its data directory."""
        return self.place / "base"

    def create(self, node: Node) -> None:
        """Make the database, its settings and its hook; nothing runs yet."""
        said = blocks("PostgreSQL")
        shutil.chown(self.place, USER, USER)
        subprocess.run(
            [self.initdb, "-D", str(self.base), "-U", USER, "--auth=trust"],
            check=True,
            capture_output=True,
            user=USER,
            group=USER,
            extra_groups=[],
            cwd="/",
        )
        settings = said["postgresql"].replace(PAGES_PLACE, str(self.tls))
        with (self.base / "postgresql.conf").open("a") as file:
            file.write(f"port = {node.port}\nlisten_addresses = '127.0.0.1'\n")
            file.write(f"unix_socket_directories = '{self.place}'\n{settings}")
        (self.base / "pg_hba.conf").write_text(said["pg_hba"])
        self._write_hook(node, said["sh"])

    def _write_hook(self, node: Node, text: str) -> None:
        pid = self.base / "postmaster.pid"
        reload = f'test ! -e {pid} || kill -HUP "$(head -n 1 {pid})"'
        assert "pg_ctlcluster 15 main reload" in text
        text = text.replace("pg_ctlcluster 15 main reload", reload)
        hook = self.place / "hook"
        text = placed(text, node.home, node.port, {PAGES_PLACE: str(self.tls)}, ports=False)
        hook.write_text(text)
        hook.chmod(0o755)
        node.add_hook(blocks("PostgreSQL")["toml"], str(hook))

    @contextlib.contextmanager
    def running(self, node: Node) -> Iterator[None]:
        """Run it."""
        log = self.place / "postgres.log"
        with running([self.program, "-D", str(self.base)], log, user=USER):
            listens(node.port, log)
            # It listens before it lets anybody in.
            eventually(lambda: "ready to accept connections" in log.read_text(), within_s=20)
            yield

    @contextlib.contextmanager
    def session(self, node: Node) -> Iterator[Callable[[str], str]]:
        """Yield what asks one question in a session that stays open."""
        key = self.place / "client.key"
        key.write_bytes((node.live / "key.pem").read_bytes())
        key.chmod(0o600)
        where = f"host=127.0.0.1 port={node.port} dbname=postgres user=postgres"
        trust = f"sslmode=verify-ca sslrootcert={node.home}/trust/ca.pem"
        mine = f"sslcert={node.live}/fullchain.pem sslkey={key}"
        words = ("--no-psqlrc", "--tuples-only", "--no-align", f"{where} {trust} {mine}")
        with subprocess.Popen(
            [self.client, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            assert process.stdin is not None
            questions, answers = process.stdin, process.stdout
            assert answers is not None

            def ask(question: str) -> str:
                print(question, file=questions, flush=True)
                return answers.readline().strip()

            try:
                yield ask
            finally:
                process.kill()
