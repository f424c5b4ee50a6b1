"""Motion: everything on the data plane that touches the network, the clock or the disk.  Start at ``exchange``."""
