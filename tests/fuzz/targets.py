"""All ways in, by name."""

from tests.fuzz.target import Target
from tests.fuzz.targets_broker import BROKER_TARGETS
from tests.fuzz.targets_http import HTTP_TARGETS
from tests.fuzz.targets_node import NODE_TARGETS
from tests.fuzz.targets_pki import PKI_TARGETS
from tests.fuzz.targets_wire import WIRE_TARGETS

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (*WIRE_TARGETS, *PKI_TARGETS, *NODE_TARGETS, *HTTP_TARGETS, *BROKER_TARGETS)
}
