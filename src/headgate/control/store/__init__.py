"""The store: its tables, its migrations, the database behind it."""
