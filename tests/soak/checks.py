"""What must hold of a frame that was read."""

from __future__ import annotations

import struct

from board import Count, Row
from pattern import WrongFrame, key_of

from shared_tensor import Publication
from shared_tensor.streams import Publication as ContractPublication

_NUMBER = struct.Struct("<Q")


def metadata(number: int) -> bytes:
    """Say in the metadata which count the frame will have."""
    return _NUMBER.pack(number)


def native(row: Row, publication: Publication, lowest: int) -> int:
    """Check a frame of `shared_tensor.Stream`, which is at least frame `lowest`; gives its key."""
    key = key_of(publication.array, publication.frame_id)
    (number,) = _NUMBER.unpack_from(publication.metadata)
    # Zero: the writer did not hold the lock, and could not know.
    if number not in (0, publication.count):
        raise WrongFrame(f"frame {publication.count} was written as frame {number}")
    if publication.count < lowest:
        raise WrongFrame(f"back: frame {publication.count} was read after frame {lowest}")
    row.add(Count.FRAMES)
    row.add(Count.TOLD, publication.phase in ("aborted", "crashed"))
    return key


def contract(row: Row, publication: ContractPublication, lowest: int) -> None:
    """Check a frame of `shared_tensor.streams`."""
    # Before the first write a payload is zeros.
    if publication.count:
        key_of(publication.payload, publication.frame_id)
    if publication.count < lowest:
        raise WrongFrame(f"back: frame {publication.count} was read after frame {lowest}")
    row.add(Count.FRAMES)
