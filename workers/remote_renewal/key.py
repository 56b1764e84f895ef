"""The CURVE key of this machine's workers, and another one when it is used up.

The processes of a machine share one key, because a grant takes one. When the CA refuses it as used
before, the first of them makes another; the others find that.
"""

import fcntl
import os

from broker.errors import StorageError
from broker.runtime.curve import CurvePair, curve_directory, worker_key_file, worker_pair
from broker.runtime.paths import Paths


def pair_after(paths: Paths, refused: str) -> CurvePair:
    """Return a key other than the public key `refused`.

    Raises:
        KeyRejectedError: The file cannot be read or kept; the hint says what to do.
        StorageError: The directory cannot be used.
    """
    try:
        place = os.open(curve_directory(paths), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(f"cannot use {curve_directory(paths)}: {error.strerror}") from None
    try:
        # Two processes that were refused at once must not replace each other's new key.
        fcntl.flock(place, fcntl.LOCK_EX)
        if worker_pair(paths).public == refused:
            worker_key_file(paths).unlink(missing_ok=True)
        return worker_pair(paths)
    except OSError as error:
        raise StorageError(f"cannot replace {worker_key_file(paths)}: {error.strerror}") from None
    finally:
        os.close(place)
