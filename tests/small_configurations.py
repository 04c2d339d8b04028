"""A small configuration of each kind of model, all sizes unequal."""

SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 20,
    "intermediate_size": 14,
    "num_attention_heads": 4,
    "vocab_size": 22,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 5e5,
}
LLAMA = {**SIZES, "model_type": "llama", "num_key_value_heads": 2}
QWEN = {**SIZES, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 6}
MIXTURE = {
    **QWEN,
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "moe_intermediate_size": 6,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
}
DEEPSEEK = {
    **SIZES,
    "model_type": "deepseek_v3",
    "q_lora_rank": 7,
    "kv_lora_rank": 5,
    "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 2,
    "v_head_dim": 4,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "moe_intermediate_size": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 1,
}
