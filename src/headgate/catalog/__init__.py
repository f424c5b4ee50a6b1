"""What can be asked for: providers' presets, names, offers, prices and the shipped aliases."""
