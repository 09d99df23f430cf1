"""Scenarios by topic. Each module enters its own into the catalogue.

Endpoints return empty containers, nested to tell them apart: without a GPU 0.2.16 returns nothing
else. Options that it does not know, such as ``plain``, it ignores.
"""
