"""Hugging Face checkpoints: safetensors and `.bin` in, safetensors with an index out."""
