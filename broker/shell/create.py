"""`python -m broker create SETTINGS`: make a CA, its first journal rows and this membership.

The membership file is written last and is the commit point: what a crashed creation left behind
is moved aside, never trusted and never deleted.
"""

import os
import secrets
import sys
from pathlib import Path

import msgspec
from msgspec.structs import replace

from broker.clock import boottime_ms, wall_s
from broker.core.names import check_host, check_new_host, mesh_domain
from broker.core.outage import plan_advice
from broker.core.pace import attempts_advice
from broker.core.policy import check_names, host_sans
from broker.errors import MeshError, MeshExistsError, NameNotAllowedError
from broker.ledger.sqlite import Ledger
from broker.pki.authority import CAProfile, CreatedAuthority, create_authority, fingerprint, pem
from broker.pki.kit import RECOVERY_BYTES, recovery_public, recovery_text
from broker.pki.seal import KDFCost, seal_keys
from broker.pki.totp import key_text, provisioning_uri
from broker.runtime.exits import Exit
from broker.runtime.files import private_directory
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.issue import SERIAL_BYTES, serial_from
from broker.shell.lock import only_broker
from broker.shell.membership import read_membership, write_membership
from broker.shell.ownhost import own_host
from broker.shell.peers import endpoint_of
from broker.shell.vault import ASIDE, create_vault, write_credential
from broker.wire.authority import CreateMesh, MeshCreation
from broker.wire.facts import MemberJoined, MeshCreated
from broker.wire.node import Endpoint, Membership
from broker.wire.policy import Policy

KDF_LANES = 4
PASSPHRASE_LENGTH_MIN = 12
TOTP_SECRET_BYTES = 20
CREDENTIAL_BYTES = 32
UNFINISHED = "unfinished-"


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
    _check_wanted(wanted)
    host = check_new_host(own_host(settings), mesh_domain(wanted.name))
    endpoint = endpoint_of(settings, host, mesh_domain(wanted.name))
    sans = _own_sans(settings, wanted.policy, endpoint, mesh_domain(wanted.name))
    set_aside(paths)
    private_directory(paths.data)
    mesh_id, now = secrets.token_hex(16), wall_s()
    authority = create_authority(
        _profile(settings, mesh_id, wanted), now=now, serials=(_draw_serial(), _draw_serial())
    )
    totp, recovery = os.urandom(TOTP_SECRET_BYTES), os.urandom(RECOVERY_BYTES)
    _write_vault(settings, paths, (authority, mesh_id, totp, wanted, recovery))
    pin = fingerprint(authority.root)
    member_id = secrets.token_hex(16)
    key = recovery_public(recovery)
    _write_ledger(paths, (wanted, mesh_id, authority, member_id, endpoint, sans, key))
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
        recovery=recovery_text(recovery),
        warnings=_warnings(settings, wanted),
    )


def _warnings(settings: Settings, wanted: CreateMesh) -> tuple[str, ...]:
    """Return what a person should know about a policy that is allowed, before anybody joins."""
    every_ms = settings.renewal.attempt_every.ms
    found = (plan_advice(wanted.policy), attempts_advice(wanted.policy, every_ms))
    return tuple(text for text in found if text)


def _check_wanted(wanted: CreateMesh) -> None:
    name = check_host(wanted.name)
    if "." in name:
        raise NameNotAllowedError(f"{name!r}: a mesh name has no dots", hint="such as home")
    if len(wanted.passphrase) < PASSPHRASE_LENGTH_MIN:
        raise NameNotAllowedError(
            f"the passphrase has fewer than {PASSPHRASE_LENGTH_MIN} characters",
            hint="leave it out and certmesh draws six words",
        )


def _own_sans(
    settings: Settings, policy: Policy, endpoint: Endpoint, domain: str
) -> tuple[str, ...]:
    """Return the names of the first node, checked now: a CA that cannot certify itself is none."""
    sans = host_sans(policy, endpoint.host, domain, endpoint.addresses, settings.node.sans)
    # A wildcard is an operator's invitation to somebody else, never a host's own name.
    check_names(replace(policy, wildcards=False), domain, sans)
    return sans


def set_aside(paths: Paths) -> None:
    """Move what an unfinished creation left out of the way; without membership it is nothing."""
    left = [path for path in (paths.authority, paths.ledger, paths.credential) if path.exists()]
    # The other CA of a rollover, which a restore that died had put back already.
    left += sorted(paths.data.glob(f"{paths.authority.name}.{ASIDE}*"))
    if not left:
        return
    aside = paths.data / f"{UNFINISHED}{boottime_ms()}"
    private_directory(aside)
    for path in left:
        path.rename(aside / path.name)
        for tail in ("-wal", "-shm"):
            beside = Path(f"{path}{tail}")
            if beside.exists():
                beside.rename(aside / beside.name)


def _profile(settings: Settings, mesh_id: str, wanted: CreateMesh) -> CAProfile:
    return CAProfile(
        mesh_id=mesh_id,
        mesh_name=wanted.name,
        permitted_names=wanted.policy.names,
        permitted_networks=wanted.policy.networks,
        root_lifetime_s=settings.ca.root_lifetime.s,
        issuer_lifetime_s=settings.ca.issuer_lifetime.s,
    )


def _write_vault(
    settings: Settings,
    paths: Paths,
    what: tuple[CreatedAuthority, str, bytes, CreateMesh, bytes],
) -> None:
    authority, mesh_id, totp, wanted, recovery = what
    credential = os.urandom(CREDENTIAL_BYTES) if _opens_itself(wanted) else None
    sealed = seal_keys(
        authority,
        mesh_id=mesh_id,
        totp_secret=totp,
        passphrase=wanted.passphrase.encode(),
        credential=credential,
        kdf=KDFCost(settings.ca.kdf_memory // 1024, settings.ca.kdf_passes, KDF_LANES),
        entropy=os.urandom,
        now=wall_s(),
        recovery=recovery,
    )
    if credential is not None:
        private_directory(paths.credential.parent)
        write_credential(paths.credential, credential)
    create_vault(paths.authority, authority, sealed)


def _opens_itself(wanted: CreateMesh) -> bool:
    """Whether a secret beside the keys opens them: asked for, and allowed by the policy."""
    return wanted.credential and wanted.policy.unattended


def _write_ledger(
    paths: Paths,
    what: tuple[CreateMesh, str, CreatedAuthority, str, Endpoint, tuple[str, ...], str],
) -> None:
    wanted, mesh_id, authority, member_id, endpoint, sans, recovery_key = what
    domain, now = mesh_domain(wanted.name), wall_s()
    ledger = Ledger.open(paths.ledger, node=endpoint.host)
    try:
        ledger.begin()
        ledger.append(
            MeshCreated(
                mesh_id=mesh_id,
                name=wanted.name,
                domain=domain,
                pin=fingerprint(authority.root),
                enrollment_open=wanted.enrollment_open,
                approval=wanted.policy.approval,
                names=wanted.policy.names,
                networks=wanted.policy.networks,
                policy=wanted.policy,
                root_crl=authority.root_crl,
                recovery_key=recovery_key,
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
