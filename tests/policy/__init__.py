"""Tests of pure decisions: no sockets, no clocks; time is an argument."""
