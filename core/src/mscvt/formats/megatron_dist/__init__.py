"""Checkpoints of `torch.distributed.checkpoint` (`torch_dist`): global tensors in chunks, whoever saved them."""
