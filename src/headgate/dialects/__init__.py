"""The meaning of each API's bytes.  One folder per API, pure; ``registry`` joins them."""
