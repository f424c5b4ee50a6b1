"""How an answer of one provider's API reaches a client of any other: its events as deltas, the deltas as a stream."""
