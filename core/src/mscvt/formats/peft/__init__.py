"""Adapters of PEFT: `adapter_model.safetensors` or `.bin` and `adapter_config.json`, in and out."""
