"""One frame as a reader has it, and whether it is what it must be."""

from __future__ import annotations

from dataclasses import dataclass

from label import Label, checksum

from shared_tensor import Publication


class WrongFrame(Exception):
    """What was read is not what the writer published."""


@dataclass(frozen=True)
class Seen:
    """One frame, read whole."""

    publication: Publication
    at_ns: int
    """When the frame was there to be used, by the monotonic clock."""
    is_copy: bool = False
    """Whether it was to be read in place, and was read from a private copy."""

    @property
    def label(self) -> Label:
        """What its writer said about it."""
        return Label.of_metadata(self.publication.metadata)

    @property
    def latency_ns(self) -> int:
        """From publication until the frame was there to be used."""
        return max(0, self.at_ns - self.publication.monotonic_ns)

    def check(self) -> None:
        """Compare every byte of it, and its number, with what its writer said.

        Raises
        ------
        WrongFrame
            It is torn, or another frame.
        """
        count, frame_id = self.publication.count, self.publication.frame_id
        label = self.label
        if not (label.number == frame_id == count and self.publication.has_own_frame_id):
            raise WrongFrame(
                f"frame {count} carries the number {label.number} and the id {frame_id}"
            )
        found = checksum(count, self.publication.array)
        if found != label.checksum:
            raise WrongFrame(
                f"frame {count} is torn: checksum {found:016x}, not {label.checksum:016x}"
            )
