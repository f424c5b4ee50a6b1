"""The control process: the store, the recorder, the admin API, and control's end of the channel.

Nothing here is on a token's path.  The data process works without it, with the last snapshot that it was sent.
"""
