"""Streams on a GPU, on the driver for tests, which `test_on_driver.py` has made and found."""
