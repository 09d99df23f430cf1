"""The contract of `shared_tensor.streams`, row by row, mostly between two processes.

``ST_CONTRACT_MODULE`` names the module under test. With ``pyshmem`` the same suite runs against the
library whose contract it is, which is how each test was checked before the module existed.
"""
