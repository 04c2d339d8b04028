"""The hooks of families, and finding the plugins that implement them."""
