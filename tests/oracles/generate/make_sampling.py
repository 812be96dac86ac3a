"""Writes data/generate/sampling.safetensors and sampling.json: what transformers' logits processors leave of given logits.

For each case: logits [97], the tokens seen (prompt and answer), the sampling values, and the probabilities from which
transformers would draw (zero where a token is dropped), with its processors in its own order. Run by hand:
  python tests/oracles/generate/make_sampling.py
Made with torch 2.11.0, transformers 5.23.0.
"""
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).resolve().parent.parent / "data" / "generate"
VOCAB = 97

SETTINGS = [
    dict(),
    dict(temperature=0.7),
    dict(temperature=2.5),
    dict(top_k=1),
    dict(top_k=5, temperature=0.6),
    dict(top_k=96),
    dict(top_k=500),
    dict(top_p=0.9),
    dict(top_p=0.05),
    dict(top_p=0.999, temperature=3.0),
    dict(min_p=0.1),
    dict(min_p=0.5, temperature=1.7),
    dict(repetition_penalty=1.3),
    dict(repetition_penalty=0.8, temperature=0.5),
    dict(top_k=20, top_p=0.8, min_p=0.05, temperature=0.9, repetition_penalty=1.1),
    dict(top_k=50, top_p=0.95, min_p=0.02, temperature=1.4),
    dict(top_k=10, top_p=0.6),
    dict(top_p=0.7, min_p=0.2, repetition_penalty=1.5),
]


def main():
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=1, num_key_value_heads=1))
    tensors, cases = {}, []
    for number, settings in enumerate(SETTINGS * 2):
        # The second round is flatter, with ties.
        logits = torch.randn(VOCAB) * 3.0 if number < len(SETTINGS) else (torch.randn(VOCAB) * 2.0).round() / 2
        seen = torch.randint(0, VOCAB, (1, 12))
        given = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=None, repetition_penalty=1.0)
        given.update(settings)
        config = GenerationConfig(do_sample=True, **given)
        processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=12,
                                                 encoder_input_ids=seen, prefix_allowed_tokens_fn=None,
                                                 logits_processor=[], device="cpu", model_kwargs={})
        left = processors(seen, logits[None].clone())
        tensors[f"{number}.logits"] = logits
        tensors[f"{number}.seen"] = seen[0].to(torch.int32)
        tensors[f"{number}.probabilities"] = torch.softmax(left.double(), -1)[0].float()
        tensors[f"{number}.logprobs"] = torch.log_softmax(logits.double() / given["temperature"], -1).float()
        cases.append(dict(settings, order=[type(p).__name__ for p in processors]))
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / "sampling.safetensors")
    (OUT / "sampling.json").write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
