"""Settings of a node: one TOML file, every key known, every duration with its unit.

Precedence: environment `CERTMESH_<SECTION>_<KEY>` over the file over the defaults here. An unknown
key is an error that names its path in the file; processes then exit 78.
"""

import functools
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from broker.errors import SettingsError
from broker.runtime.duration import Duration
from broker.runtime.notifying import check_notify
from broker.runtime.section import Section
from broker.runtime.target import parse_target
from broker.runtime.tomltext import read_toml
from broker.runtime.users import Users

Fraction = Annotated[float, Meta(gt=0.0, lt=1.0)]
DEFAULT_NAMES = ("*.home.arpa", "*.local", "*.internal")
DEFAULT_NETWORKS = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "127.0.0.0/8",
    "fc00::/7",
)


def _span(text: str) -> Duration:
    return Duration.parse(text)


class Node(Section, frozen=True):
    """`[node]`. Empty `name` means this machine's host name.

    `hook_user` is who runs a `[[hook]]` without a `user` of its own when the node runs as root.
    """

    name: str = ""
    sans: tuple[str, ...] = ()
    data_dir: str = ""
    run_dir: str = ""
    addresses: tuple[str, ...] = ()
    hook_user: str = "nobody"


class Listen(Section, frozen=True):
    """`[listen]`: `host:port`, or empty to turn a listener off. TLS is 1.3, always.

    `dashboard` is plain HTTP and takes loopback addresses only; callers show an API token.
    `workers` is where renewal workers on other machines reach the broker (ZeroMQ with CURVE).
    """

    enroll: str = "0.0.0.0:7642"
    mesh: str = "0.0.0.0:7643"
    dashboard: str = ""
    workers: str = ""
    body_limit: Annotated[int, Meta(ge=1024, le=1_048_576)] = 65_536
    per_source: Annotated[int, Meta(ge=1, le=512)] = 64


class Authority(Section, frozen=True):
    """`[ca]`: read once, at init."""

    root_lifetime: Duration = _span("3650d")
    issuer_lifetime: Duration = _span("730d")
    kdf_memory: Annotated[int, Meta(ge=8 * 1024 * 1024)] = 67_108_864
    kdf_passes: Annotated[int, Meta(ge=1)] = 3


class Policy(Section, frozen=True):
    """`[policy]`: copied into the mesh at init; later changes: `certmesh ca policy set`."""

    leaf_lifetime: Duration = _span("30d")
    renew_at: Fraction = 0.667
    outage_budget: Duration = _span("7d")
    expired_grace: Duration = _span("0s")
    wildcards: bool = False
    names: tuple[str, ...] = DEFAULT_NAMES
    networks: tuple[str, ...] = DEFAULT_NETWORKS


class Enrollment(Section, frozen=True):
    """`[enrollment]`."""

    approval_ttl: Duration = _span("24h")
    invite_ttl: Duration = _span("1h")
    totp_window: Annotated[int, Meta(ge=0, le=10)] = 1
    attempts: Annotated[int, Meta(ge=1)] = 5
    attempts_wait: Duration = _span("5m")


class ApprovalSettings(Section, frozen=True):
    """`[approval]`: who answers. Without this section nobody can be asked, so the answer is no.

    `operator` is who answers at the prompt, where the login name is a shared account.
    """

    decider: Literal["deny", "queue", "prompt", "webhook"] = "deny"
    timeout: Duration = _span("300s")
    operator: str = ""
    webhook: str = ""
    webhook_secret_file: str = ""
    webhook_ca_file: str = ""
    webhook_timeout: Duration = _span("10s")
    webhook_retries: Annotated[int, Meta(ge=0, le=20)] = 5

    def __post_init__(self) -> None:
        """Refuse a webhook in plain text, without a host, with a password, or without a secret."""
        if self.decider == "webhook" and not self.webhook:
            raise ValueError("`webhook` is empty, and the decider asks it")
        if not self.webhook:
            return
        url = urlsplit(self.webhook)
        if url.scheme != "https" or not url.hostname or url.username or url.password:
            raise ValueError("`webhook` takes an address such as https://host/path, always https")
        if not self.webhook_secret_file:
            raise ValueError("`webhook_secret_file` is empty: answers could come from anybody")


class Renewal(Section, frozen=True):
    """`[renewal]`.

    `attempt_every` is the shortest time between two attempts for one host, whatever happens.
    `in_flight` members are called by one process at a time.
    """

    check_every: Duration = _span("1h")
    jitter: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.05
    backoff_min: Duration = _span("30s")
    backoff_max: Duration = _span("1h")
    keep_versions: Annotated[int, Meta(ge=2)] = 5
    probe: tuple[str, ...] = ()
    rollback: bool = True
    peer_timeout: Duration = _span("10s")
    attempt_every: Duration = _span("1m")
    in_flight: Annotated[int, Meta(ge=1, le=64)] = 8

    def __post_init__(self) -> None:
        """Refuse a target that no probe could ever reach: its state would stay `stale`."""
        for text in self.probe:
            parse_target(text)


class Pool(Section, frozen=True):
    """`[pool]`: how many processes of the kinds that scale out; `certmesh up` takes it over.

    `remote_renewal` of them work for the CA from this machine: see `certmesh worker`.
    """

    renewal: Annotated[int, Meta(ge=1, le=32)] = 2
    gateway: Annotated[int, Meta(ge=1, le=32)] = 1
    remote_renewal: Annotated[int, Meta(ge=0, le=32)] = 0


NoticeChoice = Literal[
    "renewal.failed",
    "renewal.recovered",
    "hook.failed",
    "served.mismatch",
    "member.expiring",
    "member.expired",
    "failover.promoted",
    "approval.pending",
]
NOTICES: tuple[NoticeChoice, ...] = get_args(NoticeChoice)


class Notify(Section, frozen=True):
    """`[notify]`: who is told. Secrets are in files (0600), never in here.

    `webhook` gets a JSON object by POST, `ntfy` a short text as ntfy.sh takes it, `smtp` is
    `smtp://host:port` (STARTTLS if offered, and always before a login), `smtps://host:port`, or
    `smtp+plain://host:port` to a relay on this machine.
    """

    webhook: str = ""
    webhook_secret_file: str = ""
    ntfy: str = ""
    ntfy_token_file: str = ""
    smtp: str = ""
    smtp_from: str = ""
    smtp_to: tuple[str, ...] = ()
    smtp_user: str = ""
    smtp_password_file: str = ""
    ca_file: str = ""
    on: tuple[NoticeChoice, ...] = NOTICES
    timeout: Duration = _span("10s")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, as a `ValueError`."""
        check_notify(self)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets that are configured."""
        named = {"webhook": self.webhook, "ntfy": self.ntfy, "smtp": self.smtp}
        return tuple(name for name, address in named.items() if address)


HookEvent = Literal["issued", "renewed", "revoked", "ca_changed", "crl_changed"]


class Hook(Section, frozen=True):
    """One `[[hook]]`: argv, never a shell.

    `user` empty means the node's own user, under root the one of `[node] hook_user`.
    """

    name: str
    command: tuple[str, ...]
    event: tuple[HookEvent, ...] = ("issued", "renewed")
    timeout: Duration = _span("30s")
    user: str = ""
    retries: Annotated[int, Meta(ge=0, le=10)] = 0


class Heartbeat(Section, frozen=True):
    """`[heartbeat]`."""

    interval: Duration = _span("10s")
    suspect_after: Annotated[int, Meta(ge=1)] = 3
    skew_warn: Duration = _span("5s")


class Sync(Section, frozen=True):
    """`[sync]`: the full check of the trust bundle; changes are picked up at once."""

    every: Duration = _span("5m")


class Standby(Section, frozen=True):
    """`[standby]`. `lag_warn` is in journal rows.

    `unattended` keeps a secret beside the received CA key that opens it without a person: without
    it a standby that was restarted is locked and cannot take over.
    """

    unattended: bool = True
    lag_warn: Annotated[int, Meta(ge=0)] = 10


class Failover(Section, frozen=True):
    """`[failover]`: how a silent primary is replaced.

    `grace` should be at least three ticks, or one lost probe looks like a death. The fence after
    a pause of this node itself is half of it, the time a returning primary asks around before it
    serves two fifths.
    """

    tick: Duration = _span("5s")
    grace: Duration = _span("30s")
    stagger: Duration = _span("10s")
    mode: Literal["automatic", "witnessed", "manual"] = "automatic"
    witnesses: Annotated[int, Meta(ge=1)] = 1
    lone_pair: Literal["caretaker", "wait", "take-over"] = "caretaker"
    honour_invites: bool = False
    skew_refuse: Duration = _span("60s")


class Discovery(Section, frozen=True):
    """`[discovery]`: mDNS only finds addresses."""

    mdns: bool = True
    interfaces: tuple[str, ...] = ()
    service: str = "_certmesh._tcp.local."
    peers: tuple[str, ...] = ()


class Backup(Section, frozen=True):
    """`[backup]` of a key holder; `every` of "0s" means never, `directory` empty: `backup/`."""

    every: Duration = _span("24h")
    directory: str = ""
    keep: Annotated[int, Meta(ge=1, le=1000)] = 14


class Log(Section, frozen=True):
    """`[log]`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"


class BrokerSettings(Section, frozen=True):
    """`[broker]`."""

    worker_dead_after: Duration = _span("15s")


class Settings(Section, frozen=True):
    """The whole file."""

    node: Node = Node()
    users: Users = Users()
    listen: Listen = Listen()
    ca: Authority = Authority()
    policy: Policy = Policy()
    enrollment: Enrollment = Enrollment()
    approval: ApprovalSettings = ApprovalSettings()
    renewal: Renewal = Renewal()
    hook: tuple[Hook, ...] = ()
    pool: Pool = Pool()
    notify: Notify = Notify()
    heartbeat: Heartbeat = Heartbeat()
    sync: Sync = Sync()
    standby: Standby = Standby()
    failover: Failover = Failover()
    discovery: Discovery = Discovery()
    backup: Backup = Backup()
    log: Log = Log()
    broker: BrokerSettings = BrokerSettings()


def load_settings(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in the file at `path`.

    Raises:
        SettingsError: Missing or unreadable file, bad TOML, unknown key, impossible value; the
            detail names the file and the key's path in it.
    """
    try:
        raw = read_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}",
            hint="run `certmesh init` or `certmesh join` first, or name the right --home",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}", hint="mend the file") from None
    return parse_settings(_with_environment(raw, environ or os.environ), str(path))


def parse_settings(raw: Mapping[str, Any], where: str) -> Settings:
    """Return the settings in parsed TOML; `where` names the file in errors.

    Raises:
        SettingsError: Unknown key or impossible value.
    """
    try:
        return msgspec.convert(raw, Settings, strict=True, dec_hook=_decode_duration)
    except (msgspec.ValidationError, ValueError) as error:
        raise SettingsError(
            f"{where}: {error}", hint="mend or remove that key, then start again"
        ) from None


def _decode_duration(kind: type, value: object) -> object:
    if kind is Duration and isinstance(value, str):
        return Duration.parse(value)
    raise ValueError(f"expected {kind.__name__}, got {value!r}")


def _with_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Lay `CERTMESH_LOG_LEVEL=debug` and the like over the file; only single values."""
    merged = {key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    for section, key, kind in _single_values():
        text = environ.get(f"CERTMESH_{section.upper()}_{key.upper()}")
        # What is no section stays as it is: the check of the whole file names it.
        if text is not None and isinstance(merged.setdefault(section, {}), dict):
            merged[section][key] = _scalar(text, kind)
    return merged


@functools.cache
def _single_values() -> tuple[tuple[str, str, object], ...]:
    """Return section, key and type of all single values: looking that up takes a millisecond."""
    sections = get_type_hints(Settings).items()
    return tuple(
        (section, key, field)
        for section, kind in sections
        if isinstance(kind, type) and issubclass(kind, Section)
        for key, field in get_type_hints(kind, include_extras=False).items()
    )


def _scalar(text: str, kind: object) -> object:
    if kind is Duration or kind is str or str in map(type, get_args(kind)):
        return text
    try:
        return read_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
