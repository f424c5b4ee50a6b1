"""Whether providers answer, and engines that are found on this machine."""
