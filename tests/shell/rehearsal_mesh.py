"""A real mesh on disk with a standby and a member, for rehearsals on its files."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from broker.clock import wall_s
from broker.ledger.sqlite import Ledger
from broker.pki.issuer import Issuer
from broker.pki.seal import open_with_credential
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, parse_settings
from broker.shell.create import create_mesh
from broker.shell.throwaway import throwaway
from broker.shell.vault import load_vault, read_credential
from broker.units import UnixSeconds
from broker.wire.facts import AnyFact, CertificateIssued, CertificateServed, MemberJoined
from broker.wire.ids import Role
from broker.wire.node import Endpoint
from tests.creation import wished

PASSPHRASE = "thickness islamic barman banknote"
SETTINGS = """\
[node]
name = "atlas"
[listen]
enroll = "127.0.0.1:7642"
mesh = "127.0.0.1:7643"
[ca]
kdf_memory = 8388608
kdf_passes = 1
"""


@dataclass
class DrillMesh:
    """A primary's home: atlas leads, nas stands by, pi is a member."""

    paths: Paths
    settings: Settings

    @classmethod
    def create(cls, home: Path, *, credential: bool = True) -> "DrillMesh":
        """Create a mesh named home; atlas has no certificate of its own yet."""
        home.mkdir(parents=True, exist_ok=True)
        (home / "certmesh.toml").write_text(SETTINGS)
        settings = parse_settings(tomllib.loads(SETTINGS), "drill settings")
        paths = node_paths(home / "certmesh.toml", settings)
        paths.log.mkdir(exist_ok=True)
        paths.run.mkdir(exist_ok=True)
        wanted = wished("home", PASSPHRASE, settings=settings, credential=credential)
        create_mesh(settings, paths, wanted)
        return cls(paths, settings)

    @classmethod
    def whole(cls, home: Path) -> "DrillMesh":
        """Create a mesh with a standby and a member that have certificates."""
        mesh = cls.create(home)
        mesh.enroll("nas", "aa" * 16, "standby")
        mesh.enroll("pi", "bb" * 16)
        return mesh

    def enroll(self, host: str, member_id: str, role: Role = "member") -> None:
        """Write a member and its first certificate."""
        door = Endpoint(host, ("127.0.0.1",), 7642, 7643, f"{host}.home.internal")
        self.write(
            MemberJoined(
                member_id=member_id,
                host=host,
                sans=(f"{host}.home.internal",),
                role=role,
                endpoint=door,
                method="invite",
            )
        )
        self.certify(host)

    def certify(self, host: str, lifetime_s: int = 60) -> CertificateServed:
        """Write a certificate, whose row alone says how long it lives; return its report."""
        with_row = self.open()
        try:
            member, mesh = with_row.member_by_host(host), with_row.mesh()
        finally:
            with_row.close()
        assert member is not None
        assert mesh is not None
        made = throwaway(self.issuer(), mesh, member, wall_s())
        fields = {name: getattr(made, name) for name in CertificateIssued.__struct_fields__}
        self.write(CertificateIssued(**{**fields, "not_after": UnixSeconds(wall_s() + lifetime_s)}))
        return CertificateServed(member.member_id, made.serial, "installed", "")

    def extend_lifetimes(self) -> None:
        """Renew everybody's certificate on paper, for 29 days; atlas gets its first."""
        for host in ("atlas", "nas", "pi"):
            self.write(self.certify(host, lifetime_s=29 * 86_400 + 600))

    def issuer(self) -> Issuer:
        """Return the open CA."""
        vault, credential = load_vault(self.paths.authority), read_credential(self.paths.credential)
        assert vault is not None
        assert credential is not None
        opened = open_with_credential(vault.sealed, credential)
        return Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key)

    def open(self) -> Ledger:
        """Open the live ledger, as the broker does."""
        return Ledger.open(self.paths.ledger, node="atlas")

    def write(self, *facts: AnyFact) -> None:
        """Append rows to the live ledger."""
        ledger = self.open()
        ledger.begin()
        for fact in facts:
            ledger.append(fact, actor="test", now=wall_s())
        ledger.commit()
        ledger.close()

    def live(self) -> dict[str, bytes]:
        """Return every file of the live node."""
        files = sorted(path for path in self.paths.home.rglob("*") if path.is_file())
        return {str(path): path.read_bytes() for path in files}
