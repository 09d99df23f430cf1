"""Scenarios by topic. Each module enters its own into the catalogue."""
