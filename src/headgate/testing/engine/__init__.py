"""The fixture engine: a small language model's server without the model."""
