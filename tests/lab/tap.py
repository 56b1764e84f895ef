"""An Ethernet card whose cable is a file descriptor, made inside another network namespace."""

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEVICE = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_CLONE_NEWNET = 0x40000000


def open_tap(name: str, namespace: Path) -> int:
    """Return the cable of a new card called `name` in the network namespace at `namespace`.

    The card is gone when the descriptor is closed. Without offloads the kernel computes every
    checksum before a frame leaves, so frames can be passed on as they are.
    """
    with _inside(namespace):
        # The namespace of a card is the one in which its descriptor was opened.
        cable = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
        fcntl.ioctl(cable, _TUNSETIFF, request)
    except OSError:
        os.close(cable)
        raise
    return cable


@contextmanager
def _inside(namespace: Path) -> Iterator[None]:
    """Be in another network namespace meanwhile; only this thread is."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there)
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
