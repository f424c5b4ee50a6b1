"""The gateway's processes: the supervisor, how they start and speak, the state directory, their log."""
