"""Provider faults, and the benches that play them through a running gateway."""
