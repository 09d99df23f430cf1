"""Run the command line."""

import sys

from shared_tensor.streams._cli import main

if __name__ == "__main__":
    sys.exit(main())
