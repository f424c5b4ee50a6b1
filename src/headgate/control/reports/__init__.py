"""Questions to what is stored: requests, usage."""
