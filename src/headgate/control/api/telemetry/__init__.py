"""The routes of what the gateway reports by itself."""
