"""One number for all that a network has become, to compare runs, machines and releases."""

from __future__ import annotations

import json
from typing import Any

from cnn_core.network import Sequential


def fingerprint(net: Sequential) -> str:
    """A hash of a network's architecture, dtype, parameters and running statistics.

    Equal for two networks exactly if all of these are, bit for bit: what `Sequential.save` writes.
    It does not depend on the process, the machine's byte order, or the release of NumPy. The
    numbers themselves are reproducible on one instruction set (see `show_config`).

    Parameters
    ----------
    net : a Sequential.

    Returns
    -------
    str
        SHA-256 as 64 hexadecimal digits.

    Raises
    ------
    TypeError
        For something else than a Sequential, or a layer of one's own whose `get_config` returns
        what JSON cannot hold.
    """
    import hashlib  # here: it loads OpenSSL, for which `import cnn_core` need not wait

    if not isinstance(net, Sequential):
        raise TypeError(f"net: expected a Sequential, got {net!r}")
    with net.locked():
        try:
            digest = hashlib.sha256(_json(net.get_config()))
        except TypeError as error:
            raise TypeError(f"net: expected an architecture that JSON can hold: {error}") from None
        for kind, arrays in (("params", net.params), ("state", net.state)):
            for name, value in arrays.items():
                # The description has a length of its own, so no two networks run together.
                digest.update(_json([kind, name, value.dtype.name, list(value.shape)]))
                digest.update(value.astype(value.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _json(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"{len(text)}:{text}".encode()
