"""The targets of the settings by name; imported with the first notice, for what they weigh."""

from pathlib import Path
from typing import Protocol

from broker.runtime.settings import Notify
from broker.wire.notice import Notice
from workers.notify.mail import Mail
from workers.notify.web import Ntfy, Webhook
from workers.wires import Wires


class Target(Protocol):
    """Somebody who is told."""

    def deliver(self, notice: Notice, wires: Wires) -> str:
        """Return what is worth a word once the notice was taken, else empty; may block.

        Raises:
            NotTakenError: It was not taken.
            MeshError: This node has what it needs in no usable state.
        """
        ...


def targets_of(notify: Notify, home: Path) -> dict[str, Target]:
    """Return the targets that the settings name; file names are below `home`."""
    known: dict[str, Target] = {
        "webhook": Webhook(notify, home),
        "ntfy": Ntfy(notify, home),
        "smtp": Mail(notify, home),
    }
    return {name: known[name] for name in notify.targets}
