"""Who there is, by name."""

from __future__ import annotations

from awaiter import Awaiter
from comers import Attacher, Churner
from compatible import ContractReader, ContractWriter
from readers import Follower, Lessee, Reader
from role import Role
from writers import Metronome, Writer

DUTIES: dict[str, type[Role]] = {
    "metronome": Metronome,
    "writer": Writer,
    "contract-writer": ContractWriter,
    "reader": Reader,
    "follower": Follower,
    "lessee": Lessee,
    "awaiter": Awaiter,
    "contract-reader": ContractReader,
    "attacher": Attacher,
    "churner": Churner,
}
