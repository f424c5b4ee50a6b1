"""What the gateway reports by itself: alerts, and the webhooks that carry them."""
