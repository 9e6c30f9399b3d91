"""Tierce: a self-hosted, content-addressed object store cluster."""

from importlib.metadata import version

__version__ = version("tierce")
