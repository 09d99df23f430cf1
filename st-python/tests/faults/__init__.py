"""The faults that must not exist: one scenario each, played on pyshmem 1.4.0 and on this package.

A scenario runs in a process of its own, so that a crash or a hang of the library under test is a
result and not the end of the test run. ``python -m faults`` in the folder above plays all of them
and prints both results.
"""
