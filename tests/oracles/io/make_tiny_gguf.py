"""Writes tests/oracles/data/io/{llama,qwen2,qwen3}.gguf and what transformers reads from each: NAME.safetensors,
float32, Hugging Face names.

Run by hand after make_tiny_models.py: python tests/oracles/io/make_tiny_gguf.py   (gguf 0.19, transformers 5.23)
"""

import pathlib

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

DATA = pathlib.Path(__file__).resolve().parents[1] / "data"
TYPES = gguf.GGMLQuantizationType
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in NAMES:
        return f"{NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{LAYER[rest]}.{kind}"


def permute(rows, heads):  # as convert_hf_to_gguf.py does for llama
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write(source, target, kinds):
    config = transformers.AutoConfig.from_pretrained(source)
    arch = config.model_type
    writer = gguf.GGUFWriter(target, arch)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    for index, (name, tensor) in enumerate(load_file(source / "model.safetensors").items()):
        values = tensor.float().numpy()
        if arch == "llama" and "q_proj" in name:
            values = permute(values, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            values = permute(values, config.num_key_value_heads)
        kind = TYPES.F32
        if values.ndim == 2:
            kind = kinds[index % len(kinds)]
            if values.shape[1] % gguf.GGML_QUANT_SIZES[kind][0] != 0:
                kind = TYPES.F16
        data = gguf.quants.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    transformers.logging.set_verbosity_error()
    for source, kinds in {"rope_linear": [TYPES.Q8_0, TYPES.Q4_0, TYPES.Q5_1, TYPES.F16], "qwen2": [TYPES.Q8_0],
                          "qwen3": [TYPES.F16]}.items():
        config = transformers.AutoConfig.from_pretrained(DATA / "models" / source)
        out = DATA / "io" / f"{config.model_type}.gguf"
        write(DATA / "models" / source, out, kinds)
        model = transformers.AutoModelForCausalLM.from_pretrained(out.parent, gguf_file=out.name, config=config,
                                                                   dtype=torch.float32)
        state = {k: v.clone().contiguous() for k, v in model.state_dict().items()}
        if config.tie_word_embeddings:
            state.pop("lm_head.weight", None)
        save_file(state, out.with_suffix(".safetensors"))
        # The library undid the permutation: what it read is near what was written.
        written = load_file(DATA / "models" / source / "model.safetensors")
        for name, tensor in written.items():
            assert (state[name] - tensor).abs().max() < 0.2 * tensor.abs().max(), name
        print(out.name, out.stat().st_size, out.with_suffix(".safetensors").stat().st_size)


if __name__ == "__main__":
    main()
