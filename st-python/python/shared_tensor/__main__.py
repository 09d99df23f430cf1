"""``python -m shared_tensor``: the command."""

import sys

from shared_tensor._command import main

if __name__ == "__main__":
    sys.exit(main())
