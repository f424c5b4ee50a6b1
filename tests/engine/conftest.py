"""The ``engine`` fixture, for the tests of this folder."""

from engine_server import engine

__all__ = ["engine"]
