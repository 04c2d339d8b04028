"""Every tensor of a model, before files."""
