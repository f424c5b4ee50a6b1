"""Calls that outlast their connection, and how clients read them on."""
