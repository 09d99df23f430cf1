"""Streams on a GPU, with torch and other libraries: skipped where there is no device."""
