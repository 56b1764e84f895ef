"""`python -m broker create SETTINGS`: make a CA, its first journal rows and this membership.

The membership file is written last and is the commit point: what a crashed creation left behind
is moved aside, never trusted and never deleted.
"""

import os
import secrets
import sys
from pathlib import Path

import msgspec

from broker.clock import boottime_ms, wall_s
from broker.core.names import (
    addresses_in,
    check_host,
    check_sans,
    granted_sans,
    mesh_domain,
)
from broker.errors import MeshError, MeshExistsError, NameNotAllowedError
from broker.ledger.sqlite import Ledger
from broker.pki.authority import CAProfile, CreatedAuthority, create_authority, fingerprint, pem
from broker.pki.seal import KDFCost, seal_keys
from broker.pki.totp import key_text, provisioning_uri
from broker.runtime.exits import Exit
from broker.runtime.files import private_directory
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.issue import SERIAL_BYTES, serial_from
from broker.shell.lock import only_broker
from broker.shell.membership import read_membership, write_membership
from broker.shell.peers import endpoint_of
from broker.shell.serve import own_host
from broker.shell.vault import create_vault, write_credential
from broker.wire.authority import CreateMesh, MeshCreation
from broker.wire.facts import MemberJoined, MeshCreated
from broker.wire.node import Endpoint, Membership

KDF_LANES = 4
PASSPHRASE_LENGTH_MIN = 12
TOTP_SECRET_BYTES = 20
CREDENTIAL_BYTES = 32


def create(settings: Settings, paths: Paths) -> int:
    """Read a `CreateMesh` from standard input, create, print the `MeshCreation`."""
    try:
        wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=CreateMesh)
        with only_broker(paths.lock):
            created = create_mesh(settings, paths, wanted)
    except MeshError as error:
        answer = {"code": error.code.value, "detail": error.detail, "hint": error.hint}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return Exit.CONFLICT if isinstance(error, MeshExistsError) else Exit.FAILED
    sys.stdout.write(msgspec.json.encode(created).decode() + "\n")
    return Exit.OK


def create_mesh(settings: Settings, paths: Paths, wanted: CreateMesh) -> MeshCreation:
    """Create everything a new primary needs; all or nothing.

    Raises:
        MeshExistsError: This node belongs to a mesh already; nothing was touched.
        NameNotAllowedError: Mesh or host name is no name.
    """
    if read_membership(paths) is not None:
        raise MeshExistsError(
            "this node belongs to a mesh already", hint="certmesh status shows which"
        )
    host = check_host(own_host(settings))
    _check_wanted(wanted)
    endpoint = endpoint_of(settings, host, mesh_domain(wanted.name))
    sans = _own_sans(settings, endpoint, mesh_domain(wanted.name))
    _set_aside(paths)
    private_directory(paths.data)
    mesh_id, now = secrets.token_hex(16), wall_s()
    authority = create_authority(
        _profile(settings, mesh_id, wanted.name), now=now, serials=(_draw_serial(), _draw_serial())
    )
    totp = os.urandom(TOTP_SECRET_BYTES)
    _write_vault(settings, paths, (authority, mesh_id, totp, wanted))
    pin = fingerprint(authority.root)
    member_id = secrets.token_hex(16)
    _write_ledger(settings, paths, (wanted, mesh_id, pin, member_id, endpoint, sans))
    write_membership(
        paths,
        Membership(
            mesh_id=mesh_id,
            mesh_name=wanted.name,
            pin=pin,
            root_pem=pem(authority.root),
            host=host,
            member_id=member_id,
            server_name=endpoint.server_name,
            primary=endpoint,
        ),
    )
    return MeshCreation(
        mesh_id=mesh_id,
        name=wanted.name,
        domain=mesh_domain(wanted.name),
        pin=pin,
        host=host,
        totp_uri=provisioning_uri(totp, wanted.name),
        totp_key=key_text(totp),
    )


def _check_wanted(wanted: CreateMesh) -> None:
    name = check_host(wanted.name)
    if "." in name:
        raise NameNotAllowedError(f"{name!r}: a mesh name has no dots", hint="such as home")
    if len(wanted.passphrase) < PASSPHRASE_LENGTH_MIN:
        raise NameNotAllowedError(
            f"the passphrase has fewer than {PASSPHRASE_LENGTH_MIN} characters",
            hint="leave it out and certmesh draws six words",
        )


def _own_sans(settings: Settings, endpoint: Endpoint, domain: str) -> tuple[str, ...]:
    """Return the names of the first node, checked now: a CA that cannot certify itself is none."""
    policy = settings.policy
    own = addresses_in(endpoint.addresses, policy.networks)
    sans = granted_sans(endpoint.host, domain, own, settings.node.sans)
    check_sans(sans, names=policy.names, networks=policy.networks)
    return sans


def _set_aside(paths: Paths) -> None:
    """Move what an unfinished creation left out of the way; without membership it is nothing."""
    left = [path for path in (paths.authority, paths.ledger, paths.credential) if path.exists()]
    if not left:
        return
    aside = paths.data / f"unfinished-{boottime_ms()}"
    private_directory(aside)
    for path in left:
        path.rename(aside / path.name)
        for tail in ("-wal", "-shm"):
            beside = Path(f"{path}{tail}")
            if beside.exists():
                beside.rename(aside / beside.name)


def _profile(settings: Settings, mesh_id: str, name: str) -> CAProfile:
    return CAProfile(
        mesh_id=mesh_id,
        mesh_name=name,
        permitted_names=settings.policy.names,
        permitted_networks=settings.policy.networks,
        root_lifetime_s=settings.ca.root_lifetime.s,
        issuer_lifetime_s=settings.ca.issuer_lifetime.s,
    )


def _write_vault(
    settings: Settings, paths: Paths, what: tuple[CreatedAuthority, str, bytes, CreateMesh]
) -> None:
    authority, mesh_id, totp, wanted = what
    credential = os.urandom(CREDENTIAL_BYTES) if wanted.credential else None
    sealed = seal_keys(
        authority,
        mesh_id=mesh_id,
        totp_secret=totp,
        passphrase=wanted.passphrase.encode(),
        credential=credential,
        kdf=KDFCost(settings.ca.kdf_memory // 1024, settings.ca.kdf_passes, KDF_LANES),
        entropy=os.urandom,
        now=wall_s(),
    )
    if credential is not None:
        private_directory(paths.credential.parent)
        write_credential(paths.credential, credential)
    create_vault(paths.authority, authority, sealed)


def _write_ledger(
    settings: Settings,
    paths: Paths,
    what: tuple[CreateMesh, str, str, str, Endpoint, tuple[str, ...]],
) -> None:
    wanted, mesh_id, pin, member_id, endpoint, sans = what
    domain, now = mesh_domain(wanted.name), wall_s()
    ledger = Ledger.open(paths.ledger, node=endpoint.host)
    try:
        ledger.begin()
        ledger.append(
            MeshCreated(
                mesh_id=mesh_id,
                name=wanted.name,
                domain=domain,
                pin=pin,
                enrollment_open=wanted.enrollment_open,
                approval=wanted.approval,
                names=settings.policy.names,
                networks=settings.policy.networks,
            ),
            actor="init",
            now=now,
        )
        joined = MemberJoined(
            member_id=member_id,
            host=endpoint.host,
            sans=sans,
            role="primary",
            endpoint=endpoint,
            method="init",
        )
        ledger.append(joined, actor="init", now=now)
        ledger.commit()
    finally:
        ledger.close()


def _draw_serial() -> int:
    return serial_from(os.urandom(SERIAL_BYTES))
