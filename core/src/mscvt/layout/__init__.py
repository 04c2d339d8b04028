"""Where tensors lie in one another: named axes, cuts, walks and their proof. Knows no file, flag or family."""
