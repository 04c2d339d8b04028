"""Dialects: Megatron's keys and layouts for the core's roles, and the options that a training stack has for them."""
