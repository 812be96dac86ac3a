"""Writes tests/oracles/data/models/: tiny models by the real transformers, with what they compute.

Run by hand: python tests/oracles/io/make_tiny_models.py  (torch 2.11, transformers 5.23, float32, one thread).

Each folder is a Hugging Face folder plus io.safetensors:
  input_ids int64 [B, T], logits float32 [B, T, V]                        all but llama_score
  labels int64 [B, T] (-100: not counted), loss float32 [], grad.NAME      llama, qwen2, qwen3
    (loss: mean over the counted next-token predictions of the batch, as transformers' `labels=` computes it)
  greedy_prompt int64 [1, P], greedy_ids int64 [1, P + N]                  all but llama_score, llama_sharded_bf16
    (no EOS among the N; the likeliest token leads by at least 0.01)
  scores float32 [B, T]: score head at every position                      llama_score
"""

import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data" / "models"
VOCAB = 199


def randomize(model, seed):
    """Larger than the usual initialisation, so that attention is far from uniform and greedy choices are no ties."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if "norm" in name:
                p.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.1 * noise)
            elif "embed" in name:
                p.copy_(0.5 * noise)
            else:
                p.copy_(noise * 1.2 / p.shape[1] ** 0.5)
    return model.eval()


def config_of(cls, **changes):
    common = dict(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=True, attn_implementation="eager")
    common.update(changes)
    return cls(**common)


def ids(batch, length, seed, vocab):
    return torch.randint(3, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def save(folder, model, tensors, **arguments):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **arguments)
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, folder / "io.safetensors")
    print(folder.name, sum(f.stat().st_size for f in folder.iterdir()))


def greedy(model, seed):
    """A continuation by the real generate(), of the first prompt whose choices are no near ties and meet no EOS."""
    while True:
        prompt = ids(1, 5, seed, model.config.vocab_size)
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=16,
                             output_logits=True, return_dict_in_generate=True)
        best = torch.stack(out.logits).topk(2, -1).values
        if out.sequences.shape[1] == 5 + 16 and (best[..., 0] - best[..., 1]).min() > 0.01:
            return {"greedy_prompt": prompt, "greedy_ids": out.sequences}
        seed += 1000


def full(name, model, seed):
    """Logits, loss, every gradient, a greedy continuation."""
    randomize(model, seed)
    vocab = model.config.vocab_size
    input_ids = ids(2, 12, seed + 1, vocab)
    labels = input_ids.clone()
    labels[0, :4] = -100
    labels[1, :7] = -100
    labels[1, 11:] = -100
    out = model(input_ids=input_ids, labels=labels)
    out.loss.backward()
    tensors = {"input_ids": input_ids, "labels": labels, "logits": out.logits, "loss": out.loss}
    for parameter, value in model.named_parameters():
        tensors["grad." + parameter] = value.grad
    save(ROOT / name, model, tensors | greedy(model, seed + 2))


def forward_only(name, model, seed, batch, length, dtype=None, **arguments):
    randomize(model, seed)
    if dtype is not None:  # stored rounded, computed in float32 from the rounded weights (.to() would round buffers too)
        for p in model.parameters():
            p.data = p.data.to(dtype).to(torch.float32)
    input_ids = ids(batch, length, seed + 1, model.config.vocab_size)
    with torch.no_grad():
        logits = model(input_ids=input_ids).logits
    tensors = {"input_ids": input_ids, "logits": logits}
    if dtype is None:
        tensors |= greedy(model, seed + 2)
    else:
        model = model.to(dtype)
    save(ROOT / name, model, tensors, **arguments)


def rope_variant(name, seed, length, max_positions, **rope):
    config = config_of(transformers.LlamaConfig, vocab_size=97, num_hidden_layers=1, intermediate_size=32, head_dim=16,
                       num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=max_positions,
                       rope_parameters={"rope_theta": 10000.0, **rope})
    forward_only(name, transformers.LlamaForCausalLM(config), seed, 1, length)


def score_head(name, seed):
    config = config_of(transformers.LlamaConfig, num_labels=1, num_hidden_layers=1)
    model = randomize(transformers.LlamaForSequenceClassification(config), seed)
    input_ids = ids(2, 9, seed + 1, VOCAB)
    with torch.no_grad():
        hidden = model.model(input_ids=input_ids).last_hidden_state
        scores = model.score(hidden).squeeze(-1)
        assert torch.equal(model(input_ids=input_ids).logits.squeeze(-1), scores[:, -1])
    save(ROOT / name, model, {"input_ids": input_ids, "scores": scores})


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    llama, qwen2, qwen3 = transformers.LlamaConfig, transformers.Qwen2Config, transformers.Qwen3Config
    full("llama", transformers.LlamaForCausalLM(config_of(llama, tie_word_embeddings=False)), 11)
    full("qwen2", transformers.Qwen2ForCausalLM(config_of(qwen2, rope_parameters={
        "rope_theta": 1000000.0, "rope_type": "default"})), 21)
    full("qwen3", transformers.Qwen3ForCausalLM(config_of(qwen3, head_dim=16, num_attention_heads=4, rope_parameters={
        "rope_theta": 1000000.0, "rope_type": "default"})), 31)
    forward_only("llama_bias", transformers.LlamaForCausalLM(config_of(
        llama, num_hidden_layers=1, attention_bias=True, mlp_bias=True)), 41, 1, 12)
    forward_only("llama_sharded_bf16", transformers.LlamaForCausalLM(config_of(llama)), 51, 1, 12,
                 dtype=torch.bfloat16, max_shard_size="12KB")
    rope_variant("rope_linear", 61, 24, 64, rope_type="linear", factor=4.0)
    rope_variant("rope_dynamic", 61, 40, 16, rope_type="dynamic", factor=2.0)
    rope_variant("rope_llama3", 61, 40, 64, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                 high_freq_factor=4.0, original_max_position_embeddings=16)
    rope_variant("rope_yarn", 61, 40, 64, rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
    score_head("llama_score", 71)


if __name__ == "__main__":
    main()
