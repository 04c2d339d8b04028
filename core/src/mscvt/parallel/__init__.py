"""Which rank and chunk holds which slot."""
