"""TOML as text: whatever is in it, one refusal."""

import tomllib
from typing import Any


def read_toml(text: str) -> dict[str, Any]:
    """Return the values in `text`.

    Raises:
        tomllib.TOMLDecodeError: It is no TOML. The library by itself also lets a number of more
            digits than Python converts, and nesting without end, out as other exceptions.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:
        raise tomllib.TOMLDecodeError(str(error)) from None
    except RecursionError:
        raise tomllib.TOMLDecodeError("nested too deeply") from None
