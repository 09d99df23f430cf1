"""Streams whose frames are on a GPU, beside pyshmem's and what the driver alone takes."""
