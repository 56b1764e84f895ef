"""What a process of some user gets done against a node: run as that user, prints JSON.

`python -m tests.faults.intruder SETTINGS read PATH...`, `... write PATH...`, `... connect PATH...`
or `... be SERVICE [IDENTITY]`: each answers with what happened, by name.
"""

import json
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import zmq

from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.runtime.sockets import dealer
from broker.wire.authority import LockAuthority
from broker.wire.base import Request
from broker.wire.codec import WIRE_VERSION, decode_answer, encode
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Ready
from broker.wire.messages import Call

PATIENCE_MS = 5_000
"""For an answer; silence is what a socket says that lets nobody in."""
SILENCE = "silence"


def read(path: str) -> str:
    """Return `read`, or why not."""
    try:
        if Path(path).is_dir():
            list(Path(path).iterdir())
        else:
            Path(path).read_bytes()
    except OSError as error:
        return type(error).__name__
    return "read"


def write(path: str) -> str:
    """Try to make a file in a directory, or to open a file for writing; changes nothing in it."""
    place = Path(path)
    try:
        if place.is_dir():
            made = place / f"intruder-{secrets.token_hex(4)}"
            made.touch()
            made.unlink()
        else:
            os.close(os.open(place, os.O_WRONLY))
    except OSError as error:
        return type(error).__name__
    return "written"


def connect(path: str) -> str:
    """Try to connect to a socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(path)
        except OSError as error:
            return type(error).__name__
        return "connected"


def speak(paths: Paths, service: str, identity: str = "") -> dict[str, str]:
    """Act over one connection: as whoever has the identity, then as the service."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    name = identity or f"{service}/intruder/{secrets.token_hex(4)}"
    link = dealer(context, paths.control_socket, name.encode())
    ready = Ready(Service(service), service, "intruder", 1, WIRE_VERSION)
    acts: dict[str, Request] = {
        "beat": Beat(progress=1, within_ms=1000),
        "goodbye": Goodbye("intruder"),
        "before": LockAuthority(operator="eve"),
        "ready": ready,
        "after": LockAuthority(operator="eve"),
    }
    found = {}
    try:
        for act, request in acts.items():
            found[act] = _ask(link, request)
            if found[act] == SILENCE:
                break
        return found
    finally:
        context.destroy(linger=0)


def _ask(link: "zmq.Socket[bytes]", request: Request) -> str:
    call: Any = Call(secrets.token_bytes(16), PATIENCE_MS, request)  # type: ignore[arg-type]  # any kind
    if not link.poll(PATIENCE_MS, zmq.POLLOUT):
        return SILENCE
    try:
        link.send_multipart(encode(call), zmq.NOBLOCK)
    except zmq.Again:
        return SILENCE
    if not link.poll(PATIENCE_MS, zmq.POLLIN):
        return SILENCE
    reply = decode_answer(link.recv_multipart()).reply
    if isinstance(reply, Fault):
        return reply.code
    if isinstance(reply, BeatAnswer):
        return "known" if reply.registered else "unknown"
    tag = reply.__struct_config__.tag
    return str(tag)


def main(settings: str, act: str, *words: str) -> None:
    """Do one thing and print what came of it."""
    path = Path(settings)
    if act == "be":
        found = speak(node_paths(path, load_settings(path)), *words)
    else:
        doing = {"read": read, "write": write, "connect": connect}[act]
        found = {word: doing(word) for word in words}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
