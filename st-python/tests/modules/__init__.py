"""Modules without pickle."""
