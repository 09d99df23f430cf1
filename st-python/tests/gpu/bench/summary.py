"""What rounds of several packages come to, as figures of the report."""

from __future__ import annotations

import statistics
from typing import Any

OURS = "ours"
#: What the report's words mean.
ORDERED_BY = {"memops": "the device", "host": "the host (fallback)", "none": "itself"}
FLOOR = "floor"
#: Rows: what the report calls them, and the most that p50 of ours may be, in microseconds.
ROWS = {
    "echo": ("echo of 4 KB", 150.0),
    "gibibyte": ("1 GiB, kept", 200.0),
    "bert": ("Bert, opened again", 1500.0),
    "tensors_1": ("1 GiB in 1 tensor", 5000.0),
    "tensors_10": ("1 GiB in 10 tensors", 5000.0),
    "tensors_100": ("1 GiB in 100 tensors", 5000.0),
    "tensors_1000": ("1 GiB in 1000 tensors", 5000.0),
    "gibibyte anew": ("1 GiB, mapped anew", None),
    "bert anew": ("Bert, mapped anew", None),
}
#: Of a process's first call, in microseconds; and the row of the floor that it is beside.
FIRST = {"bert": ("Bert, first", 15000.0, "bert anew")}


def name_of(row: str, package: str) -> str:
    """Name a row of a package as the report does."""
    return f"{ROWS[row][0]}: {package}"


def figures(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Sum up the rounds of each, by name."""
    floors = found.get(FLOOR, [])
    made = []
    for row, (_, limit) in ROWS.items():
        for name, rounds in found.items():
            some = [it[row] for it in rounds if row in it]
            if not some:
                continue
            figure = _about(name_of(row, name), rounds)
            p50 = [it["p50"] for it in some]
            figure.update({mark: _middle(some, mark) for mark in ("p50", "p90", "p99")})
            figure.update(samples=sum(it["samples"] for it in some), rounds=len(some))
            figure.update(least=min(p50), greatest=max(p50))
            if name == OURS:
                figure.update(limit=limit, floor=_floor(floors, row))
            made.append(figure)
    for row, (title, limit, beside) in FIRST.items():
        for name, rounds in found.items():
            took = sorted(it[row]["first"] for it in rounds if row in it)
            if not took or name == FLOOR:
                continue
            figure = _about(f"{title}: {name}", rounds)
            figure.update(p50=statistics.median(took), p90=took[-1], p99=took[-1])
            figure.update(samples=len(took), rounds=len(took), least=took[0], greatest=took[-1])
            if name == OURS:
                figure.update(limit=limit, floor=_floor(floors, beside))
            made.append(figure)
    return made


def line(figure: dict[str, Any]) -> str:
    """Say it in a line."""
    text = f"{figure['name']:40} p50 {figure['p50']:10.1f} us "
    text += f"({figure['least']:.1f} to {figure['greatest']:.1f})  p99 {figure['p99']:10.1f} us"
    text += f"  ordered by {ORDERED_BY[figure['ordering']]}"
    if figure.get("floor") is not None:
        text += f"  floor {figure['floor']:.1f} us"
    if figure.get("limit") is not None:
        verdict = "pass" if figure["p50"] <= figure["limit"] else "miss"
        text += f"  limit {figure['limit']:.0f} us: {verdict}"
    return text


def _about(name: str, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    orderings = {it["ordering"] for it in rounds}
    # One round by the fallback spoils the figure.
    ordering = "host" if "host" in orderings else sorted(orderings)[0]
    devices = sorted({it["device"] for it in rounds})
    return {"name": name, "unit": "us", "ordering": ordering, "devices": devices}


def _middle(rounds: list[dict[str, Any]], mark: str) -> float:
    return float(statistics.median(it[mark] for it in rounds))


def _floor(floors: list[dict[str, Any]], row: str) -> float | None:
    some = [it[row] for it in floors if row in it]
    return _middle(some, "p50") if some else None


#: What a module may take beside itself while it is published, a chunk: so many bytes at least, or
#: so small a part of it.
EXTRA = (1 << 30, 16)
#: By so much less differ two looks at the free memory of a device with the same things on it.
NOISE = 32 << 20


#: How the module was built that is published, and what the report calls that.
BUILT = {"moved": "of cudaMalloc, moved", "pooled": "of a pool, lent where it is"}


def name_of_publishing(gib: int, built: str) -> str:
    """Name it as the report does."""
    return f"publish of {gib} GiB {BUILT[built]}"


def of_publishing(
    built: str,
    rounds: list[dict[str, Any]],
    watched: dict[str, Any],
    floors: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Sum up how long it took beside bare copies, and what it took beside the module.

    What is moved has a floor: what the driver alone takes for that, beside its own copies.
    """
    title = name_of_publishing(rounds[0]["gib"], built)
    shares = [100 * it["floor"] / it["seconds"] for it in rounds]
    seconds = [1e6 * it["seconds"] for it in rounds]
    whole = [1e6 * it["whole"] for it in rounds]
    took = _spread(title, "us", seconds, rounds)
    share = _spread(f"{title}, share of copy bandwidth", "%", shares, rounds)
    if floors:
        took["floor"] = statistics.median(it["in_line"] for it in floors)
        share["floor"] = statistics.median(100 * it["copies"] / it["in_line"] for it in floors)
    return [
        took,
        _spread(f"{title}, with the call and its opening", "us", whole, rounds),
        {**share, "limit": 85.0, "is_least": True},
        {
            **_spread(f"{title}, extra memory", "bytes", [watched["extra"]], [watched]),
            "limit": max(EXTRA[0], rounds[0]["gib"] * (1 << 30) // EXTRA[1]),
        },
    ]


#: What the floor of moving says of the driver, and what the report calls that.
DRIVER = {
    "copies": "copies alone",
    "made": "chunks made and mapped",
    "created": "of that, making them",
    "mapped": "of that, mapping them",
    "in_line": "moved, each chunk in turn",
    "in_line_freed": "of that, waiting and freeing",
}


def of_driver(gib: int, floors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up what the driver takes for such a move by itself."""
    return [
        _spread(f"driver alone, {gib} GiB: {title}", "us", [it[part] for it in floors], floors)
        for part, title in DRIVER.items()
    ]


def name_of_in_place(which: str) -> str:
    """Name it as the report does."""
    return f"1 GiB with copy=False: {which}"


def of_in_place(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up what a tensor takes that stays where it is: a process's first call, and the others."""
    return [
        _spread(name_of_in_place("first"), "us", [it["first"] for it in rounds], rounds),
        {
            **_spread(name_of_in_place("again"), "us", [it["p50"] for it in rounds], rounds),
            "p90": _middle(rounds, "p90"),
            "p99": _middle(rounds, "p99"),
            "samples": sum(it["samples"] for it in rounds),
        },
    ]


def of_clients(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sum up what each client's context took, and what it took beside that."""
    contexts = [one["after"] - other["before"] for one, other in zip(found, found[1:])]
    beside = [max(0, it["before"] - it["after"]) for it in found[1:]]
    title = f"client of Bert, {len(contexts)} of them"
    return [
        _spread(f"{title}: context", "bytes", contexts, found[1:]),
        {**_spread(f"{title}: beside its context", "bytes", beside, found[1:]), "limit": NOISE},
    ]


def _spread(
    name: str, unit: str, values: list[float], rounds: list[dict[str, Any]]
) -> dict[str, Any]:
    ordered = sorted(values)
    figure = {**_about(name, rounds), "unit": unit, "p50": ordered[len(ordered) // 2]}
    figure.update(p90=ordered[-1], p99=ordered[-1], least=ordered[0], greatest=ordered[-1])
    return {**figure, "samples": len(ordered), "rounds": len(ordered)}
