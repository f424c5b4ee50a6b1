"""The commands that do one thing: chat, check, explain, reload, drain."""
