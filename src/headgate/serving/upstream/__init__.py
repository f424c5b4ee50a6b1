"""The provider's side: connection pools, connections, dialling."""
