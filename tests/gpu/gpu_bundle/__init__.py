"""Runs what ``cargo xtask gpu-bundle`` put together, on a GPU, and reports what came of it.

The standard library of Python 3.9 is all it needs. No program is believed because it exited with 0:
what it was to do is compared with what it says, and with what it left in files.
"""
