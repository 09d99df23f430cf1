"""Objects carried from one process to another, as a service would: a region and a manifest."""

from __future__ import annotations

import os
from typing import Any

from shared_tensor._modules import Encoded, Opener, Packed, Policy, Region, encode, pack

__all__ = ["carried", "received", "sent", "there_and_back", "unpacked"]


def sent(root: Any, policy: Policy | None = None) -> tuple[dict[str, Any], int]:
    """Put an object into a region; what another process must be told, and the descriptor."""
    return packed(encode(root, policy))


def packed(encoded: Encoded) -> tuple[dict[str, Any], int]:
    """Put what was encoded into a region."""
    region = pack(encoded.storages)
    told = {
        "manifest": encoded.manifest.hex(),
        "fd": region.fd,
        "length": region.length,
        "places": region.places,
        "notes": encoded.notes,
    }
    return told, region.fd


def received(told: dict[str, Any], policy: Policy | None = None, **options: Any) -> Any:
    """Open what another process sent."""
    places = [(start, count) for start, count in told["places"]]
    with Region(Packed(told["fd"], told["length"], places)) as region:
        opener = Opener(bytes.fromhex(told["manifest"]), policy)
        return opener.open(region.memory, private=region.private, **options)


def carried(root: Any, policy: Policy | None = None, **options: Any) -> Any:
    """Return an object as it comes out at the other end, in this process."""
    return unpacked(encode(root, policy), policy, **options)


def unpacked(encoded: Encoded, policy: Policy | None = None, **options: Any) -> Any:
    """Open what was encoded, in this process, by way of a region."""
    told, descriptor = packed(encoded)
    try:
        return received(told, policy, **options)
    finally:
        os.close(descriptor)


def there_and_back(root: Any, policy: Policy | None = None) -> Any:
    """Return an object carried, after its manifest was found to be the same on the way back."""
    first = encode(root, policy)
    opened = unpacked(first, policy)
    again = encode(opened, policy)
    assert again.manifest == first.manifest, "encoded again, it is another object"
    lengths = [(each.length, each.sharing) for each in first.storages]
    assert [(each.length, each.sharing) for each in again.storages] == lengths
    return opened
