"""The OpenAPI documents of all doors, as they lie in `docs/`.

`python -m tests.openapi_files` writes them; a test compares.
"""

from collections.abc import Mapping
from pathlib import Path

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from workers.console.service import console_routes
from workers.gateway.routes import ENROLL_ROUTES, MESH_ROUTES
from workers.health import HealthDesk
from workers.openapi import ENROLL, LOCAL, MESH, DoorFace, as_text, document
from workers.route import Route

DOCS = Path(__file__).parents[1] / "docs"


def doors() -> Mapping[str, tuple[DoorFace, tuple[Route, ...]]]:
    """Return every door by the name of its document: its face, and its routes."""
    nowhere = Path("/nonexistent")
    health = HealthDesk(lambda: None).routes()
    return {
        "openapi.json": (LOCAL, console_routes(Settings(), Paths(nowhere, nowhere, nowhere))),
        "openapi-enroll.json": (ENROLL, ENROLL_ROUTES + health),
        "openapi-mesh.json": (MESH, MESH_ROUTES + health),
    }


def texts() -> Mapping[str, bytes]:
    """Return the documents by file name."""
    return {name: as_text(document(face, routes)) for name, (face, routes) in doors().items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (DOCS / name).write_bytes(text)
