"""The options `init` and `join` share: what this node is called and where its doors are."""

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from broker.cli.nodehome import Wanted, setting_options

ENROLL_PORT = 7642
MESH_PORT = 7643
EVERYWHERE = "0.0.0.0"  # noqa: S104 (a node's doors are open to its LAN; TLS guards them)

_PROBES = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Documentation addresses (RFC 5737, RFC 3849): asking for the route to them sends no packet."""

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What the person said about this node; zero and empty mean nothing was said."""

    node_name: str
    listen: str
    enroll_port: int
    mesh_port: int
    setting: tuple[str, ...]

    def wanted(self) -> dict[tuple[str, str], Any]:
        """Return the settings asked for by option."""
        keys: dict[tuple[str, str], Any] = {}
        if self.node_name:
            keys["node", "name"] = self.node_name
        if self.listen:
            keys["listen", "enroll"] = _door(self.listen, self.enroll_port or ENROLL_PORT)
            keys["listen", "mesh"] = _door(self.listen, self.mesh_port or MESH_PORT)
            if self.listen not in (EVERYWHERE, "::"):
                keys["node", "addresses"] = [self.listen]
        else:
            if self.enroll_port:
                keys["listen", "enroll"] = _door(EVERYWHERE, self.enroll_port)
            if self.mesh_port:
                keys["listen", "mesh"] = _door(EVERYWHERE, self.mesh_port)
        return keys | setting_options(self.setting)


def node_options(command: Decorated) -> Decorated:
    """Add the shared options to a command."""
    for option in reversed(
        (
            click.option("--node-name", default="", help="This host's name (default: host name)."),
            click.option(
                "--listen", default="", metavar="ADDRESS", help="Serve on this (default: all)."
            ),
            click.option("--enroll-port", type=click.IntRange(1, 65535), default=None),
            click.option("--mesh-port", type=click.IntRange(1, 65535), default=None),
            click.option(
                "--setting",
                multiple=True,
                metavar="SECTION.KEY=VALUE",
                help="Write a setting; the value is TOML. Repeatable.",
            ),
        )
    ):
        command = option(command)
    return command


def taken(given: dict[str, Any]) -> NodeOptions:
    """Return the shared options out of a command's arguments, and take them out there.

    Raises:
        click.UsageError: `--listen` is no address.
    """
    listen = given.pop("listen")
    if listen:
        try:
            ipaddress.ip_address(listen)
        except ValueError:
            raise click.UsageError(f'--listen wants an IP address, not "{listen}"') from None
    return NodeOptions(
        node_name=given.pop("node_name"),
        listen=listen,
        enroll_port=given.pop("enroll_port") or 0,
        mesh_port=given.pop("mesh_port") or 0,
        setting=given.pop("setting"),
    )


def usual_settings(host: str = "") -> Wanted:
    """Return what a node's file says unless somebody knows better: its name and its addresses.

    And that people are asked at all: also without approval, a later policy or a rejoin asks
    somebody, where there is nobody to ask the answer is no, and any node may lead one day.
    """
    return {
        ("node", "name"): host or own_name(),
        ("node", "addresses"): list(own_addresses()),
        ("approval", "decider"): "queue",
    }


def own_name() -> str:
    """Return the first label of the host name as RFC 1123 wants it.

    Only the first label: a domain the mesh does not own would be refused in a certificate.
    """
    label = re.sub(r"[^a-z0-9-]+", "-", os.uname().nodename.partition(".")[0].lower()).strip("-")
    return label[:63] or "node"


def own_addresses() -> tuple[str, ...]:
    """Return the addresses other machines reach this one at, as the routing table has it."""
    found = tuple(address for family, probe in _PROBES if (address := _source(family, probe)))
    return found or ("127.0.0.1",)


def _source(family: socket.AddressFamily, probe: str) -> str:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as dialled:
            dialled.connect((probe, 9))
            address = ipaddress.ip_address(str(dialled.getsockname()[0]).partition("%")[0])
    except (OSError, ValueError):
        return ""
    usable = address.is_private and not address.is_link_local and not address.is_unspecified
    return str(address) if usable else ""


def _door(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
