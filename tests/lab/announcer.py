"""Anybody's words on the LAN: `python -m tests.lab.announcer` with its words..

Its words: own address, instance, address and port to announce, TXT records as KEY=VALUE.

Announces a service of certmesh's type from this host until standard input ends, then says goodbye.
Prints `ready` once it is on the air; nothing checks whether a word of it is true.
"""

import sys

from zeroconf import IPVersion, ServiceInfo, Zeroconf

from broker.runtime.settings import Discovery


def main() -> int:
    """Announce what the command line says."""
    own, instance, address, port, *pairs = sys.argv[1:]
    service = Discovery().service
    spoken = ServiceInfo(
        service,
        f"{instance}.{service}",
        port=int(port),
        parsed_addresses=[address],
        properties=dict(pair.split("=", 1) for pair in pairs),
        server=f"{instance}.local.",
    )
    # Given addresses work only together with V4Only.
    air = Zeroconf(interfaces=[own], ip_version=IPVersion.V4Only)
    try:
        # A liar does not ask first whether the name is taken.
        air.register_service(spoken, cooperating_responders=True)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        air.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
