"""What the data processes are told: composed, published, sent."""
