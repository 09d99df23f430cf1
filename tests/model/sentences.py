"""What is embedded, and what is known about it."""

from __future__ import annotations

SENTENCES = (
    "A kitten sleeps on the warm window sill.",
    "The cat is taking a nap by the window.",
    "The central bank raised interest rates again.",
    "Borrowing money has become more expensive this year.",
    "She soldered the last resistor onto the circuit board.",
    "Rain is expected along the coast until Thursday.",
)

#: Indices of two sentences about one thing, and of one about another: whoever understands them puts
#: the first two closer together.
CLOSER = ((0, 1, 2), (2, 3, 0), (2, 3, 5), (0, 1, 4))
