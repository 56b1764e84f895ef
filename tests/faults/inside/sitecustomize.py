"""Imported by every Python that has this directory on its path; puts failpoints into some.

The processes of the product that are not named here notice nothing.
"""

import os
import sys

PROGRAMS = {"broker", "workers.renewal"}

if "CERTMESH_FAILPOINT" in os.environ and sys.orig_argv[1:2] == ["-m"]:
    program = sys.orig_argv[2]
    if program in PROGRAMS:
        from tests.faults.inside import failpoints

        failpoints.install(program)
