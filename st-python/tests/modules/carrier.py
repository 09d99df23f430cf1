"""Objects carried from one process to another, as a service would: a region and a manifest."""

from __future__ import annotations

import os
from typing import Any

from shared_tensor._modules import Encoded, Opener, Packed, Policy, Region, encode, pack

__all__ = ["carried", "encoded", "received", "sent", "there_and_back"]


def sent(root: Any, policy: Policy | None = None) -> tuple[dict[str, Any], int]:
    """Put an object into a region; what another process must be told, and the descriptor."""
    encoded = encode(root, policy)
    packed = pack(encoded.storages)
    told = {
        "manifest": encoded.manifest.hex(),
        "fd": packed.fd,
        "length": packed.length,
        "places": packed.places,
        "notes": encoded.notes,
    }
    return told, packed.fd


def received(told: dict[str, Any], policy: Policy | None = None, **options: Any) -> Any:
    """Open what another process sent."""
    places = [(start, count) for start, count in told["places"]]
    with Region(Packed(told["fd"], told["length"], places)) as region:
        opener = Opener(bytes.fromhex(told["manifest"]), policy)
        return opener.open(region.memory, private=region.private, **options)


def carried(root: Any, policy: Policy | None = None, **options: Any) -> Any:
    """Return an object as it comes out at the other end, in this process."""
    told, descriptor = sent(root, policy)
    try:
        return received(told, policy, **options)
    finally:
        os.close(descriptor)


def there_and_back(root: Any, policy: Policy | None = None) -> Any:
    """Return an object carried, after its manifest was found to be the same on the way back."""
    first = encode(root, policy)
    opened = carried(root, policy)
    again = encode(opened, policy)
    assert again.manifest == first.manifest, "encoded again, it is another object"
    lengths = [(each.length, each.sharing) for each in first.storages]
    assert [(each.length, each.sharing) for each in again.storages] == lengths
    return opened


def encoded(root: Any) -> Encoded:
    """Only one side."""
    return encode(root)
