"""Share tensors between the processes of one Linux host.

Importing this package loads neither NumPy nor torch.
"""

from shared_tensor._native import __version__

__all__ = ["__version__"]
