"""Megatron checkpoints in the `torch` format: one `model_optim_rng.pt` for each model-parallel rank."""
