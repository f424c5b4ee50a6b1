"""The models that can be requested: providers' presets, names, offers, prices and the shipped aliases."""
