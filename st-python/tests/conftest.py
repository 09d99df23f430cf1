"""Signals as a terminal leaves them, for tests and for the processes that they start."""

from __future__ import annotations

import signal

# A shell has what it runs in the background ignore Ctrl-C, and so all that this starts: tests that
# interrupt others would wait in vain.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
