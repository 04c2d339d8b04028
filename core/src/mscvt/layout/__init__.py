"""Layouts: where tensors lie in one another. Knows no file, flag or family."""
