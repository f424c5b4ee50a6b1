"""Calls that outlast their connection, and their readers."""
