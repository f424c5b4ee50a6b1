"""The ``engine`` fixture, for the tests of this folder."""

from tests.engine.server import engine

__all__ = ["engine"]
