"""Writes tests/oracles/data/models/minimind_*/: tiny MiniMinds with experts, their numbers in float64 by the formulas.

Run by hand: python tests/oracles/train/make_minimind.py  (torch 2.11; nothing of MiniMind's own code).

config.json, model.safetensors (float32) and io.safetensors:
  input_ids [2, 11], logits [2, 11, V]; greedy_prompt [1, 4], greedy_ids [1, 16];
  ragged_ids [18], ragged_lengths [3]: sequences one after another; ragged_aux, ragged_loss: the auxiliary loss and the
  mean cross-entropy of all next tokens; grad.NAME: gradient of ragged_loss + 3 * ragged_aux;
  rows_aux: the auxiliary loss of input_ids.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).resolve().parents[1] / "data" / "models"
SIZES = {"vocab_size": 37, "hidden_size": 32, "intermediate_size": 20, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-5,
         "rope_theta": 1e4, "hidden_act": "silu"}
CASES = {
    "minimind_moe": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "norm_topk_prob": True,
                     "aux_loss_alpha": 0.3, "seq_aux": True, "scoring_func": "softmax"},
    "minimind_moe_global": {"n_routed_experts": 3, "num_experts_per_tok": 1, "n_shared_experts": 0,
                            "norm_topk_prob": True, "aux_loss_alpha": 0.2, "seq_aux": False},
    "minimind_moe_plain": {"n_routed_experts": 5, "num_experts_per_tok": 3, "n_shared_experts": 2,
                           "norm_topk_prob": False, "aux_loss_alpha": 0.3, "seq_aux": True},
}


class Oracle:
    def __init__(self, config, weights):
        self.c, self.w = config, weights
        self.head = config["hidden_size"] // config["num_attention_heads"]

    def norm(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.c["rms_norm_eps"]) * self.w[name]

    def turned(self, x):  # [T, heads, head]
        half = self.head // 2
        i = torch.arange(half, dtype=torch.float64)
        angle = torch.arange(x.shape[0], dtype=torch.float64)[:, None] * self.c["rope_theta"] ** (-2 * i / self.head)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def attention(self, x, prefix):
        length, heads, kv = x.shape[0], self.c["num_attention_heads"], self.c["num_key_value_heads"]
        project = lambda name, n: (x @ self.w[prefix + name + "_proj.weight"].T).view(length, n, self.head)
        q, k, v = self.turned(project("q", heads)), self.turned(project("k", kv)), project("v", kv)
        out = torch.zeros(length, heads, self.head, dtype=x.dtype)
        for h in range(heads):
            scores = q[:, h] @ k[:, h * kv // heads].T / self.head ** 0.5
            scores = scores.masked_fill(torch.triu(torch.ones(length, length, dtype=torch.bool), 1), -torch.inf)
            out[:, h] = scores.softmax(-1) @ v[:, h * kv // heads]
        return out.reshape(length, -1) @ self.w[prefix + "o_proj.weight"].T

    def swiglu(self, x, prefix):
        gate, up, down = (self.w[f"{prefix}.{n}_proj.weight"] for n in ("gate", "up", "down"))
        return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T

    def experts(self, x, prefix, routes):
        c = self.c
        p = (x @ self.w[prefix + "gate.weight"].T).softmax(-1)
        best = p.topk(c["num_experts_per_tok"], -1)
        routes.append((p, best.indices))
        y = sum((self.swiglu(x, f"{prefix}shared_experts.{j}") for j in range(c["n_shared_experts"])),
                torch.zeros_like(x))
        for j in range(c["n_routed_experts"]):  # every expert on every token, with weight 0 where it was not chosen
            weights = torch.where(best.indices == j, best.values, 0.0).sum(-1, keepdim=True)
            if c["norm_topk_prob"] and c["num_experts_per_tok"] > 1:
                weights = weights / best.values.sum(-1, keepdim=True)
            y = y + weights * self.swiglu(x, f"{prefix}experts.{j}")
        return y

    def logits(self, ids):
        """[T, V], and of each layer (p, choices)."""
        routes = []
        x = self.w["model.embed_tokens.weight"][ids]
        for i in range(self.c["num_hidden_layers"]):
            prefix = f"model.layers.{i}."
            x = x + self.attention(self.norm(x, prefix + "input_layernorm.weight"), prefix + "self_attn.")
            x = x + self.experts(self.norm(x, prefix + "post_attention_layernorm.weight"), prefix + "mlp.", routes)
        return self.norm(x, "model.norm.weight") @ self.w["model.embed_tokens.weight"].T, routes

    def aux(self, all_routes):
        """Of sequences: [sequence][layer] -> (p, choices)."""
        c, total = self.c, 0.0
        experts, per_token = c["n_routed_experts"], c["num_experts_per_tok"]
        for layer in range(c["num_hidden_layers"]):
            ps, choices = [r[layer][0] for r in all_routes], [r[layer][1] for r in all_routes]
            if not c["seq_aux"]:
                ps, choices = [torch.cat(ps)], [torch.cat(choices)]
            for p, chosen in zip(ps, choices):
                count = torch.bincount(chosen.flatten(), minlength=experts).double()
                load = count / (p.shape[0] * per_token / experts)
                total = total + c["aux_loss_alpha"] * (load * p.mean(0)).sum() / len(ps)
        return total


def shapes(c):
    h, inner, kv = c["hidden_size"], c["intermediate_size"], c["hidden_size"] // c["num_attention_heads"] * c["num_key_value_heads"]
    out = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        out |= {p + "input_layernorm.weight": (h,), p + "post_attention_layernorm.weight": (h,),
                p + "self_attn.q_proj.weight": (h, h), p + "self_attn.k_proj.weight": (kv, h),
                p + "self_attn.v_proj.weight": (kv, h), p + "self_attn.o_proj.weight": (h, h),
                p + "mlp.gate.weight": (c["n_routed_experts"], h)}
        for kind, n in (("experts", c["n_routed_experts"]), ("shared_experts", c["n_shared_experts"])):
            for j in range(n):
                q = f"{p}mlp.{kind}.{j}."
                out |= {q + "gate_proj.weight": (inner, h), q + "up_proj.weight": (inner, h),
                        q + "down_proj.weight": (h, inner)}
    return out


def margin(config, routes):
    """Smallest distance in log p between a token's last expert and the first that it does not go to."""
    k = config["num_experts_per_tok"]
    ordered = [p.detach().log().sort(-1, descending=True).values for sequence in routes for p, _ in sequence]
    return min((p[:, k - 1] - p[:, k]).min().item() for p in ordered)


def make(name, moe):
    """Draws until no choice of experts is so near a tie that rounding to bfloat16 changes it."""
    for seed in range(10000):
        if write(name, moe, seed):
            return


def write(name, moe, seed):
    config = {"architectures": ["MiniMindForCausalLM"], "model_type": "minimind"} | SIZES | {"use_moe": True} | moe
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in shapes(config).items():
        draw = torch.randn(shape, generator=generator)
        gain = 0.7 if "embed" in key else 2 / shape[-1] ** 0.5 if "mlp.gate" in key else 1 / shape[-1] ** 0.5
        weights[key] = 1 + 0.2 * draw if len(shape) == 1 else gain * draw
    wide = {k: v.double().requires_grad_() for k, v in weights.items()}
    oracle = Oracle(config, wide)

    ids = torch.randint(3, config["vocab_size"], (2, 11), generator=generator)
    rows = [oracle.logits(row) for row in ids]
    if margin(config, [r[1] for r in rows]) < 0.08:
        return False
    io = {"input_ids": ids, "logits": torch.stack([r[0] for r in rows]), "rows_aux": oracle.aux([r[1] for r in rows])}

    lengths = [9, 2, 7]
    ragged = torch.randint(3, config["vocab_size"], (sum(lengths),), generator=generator)
    parts = [oracle.logits(part) for part in ragged.split(lengths)]
    predicted = torch.cat([p[0][:-1] for p in parts])
    loss = F.cross_entropy(predicted, torch.cat([part[1:] for part in ragged.split(lengths)]))
    aux = oracle.aux([p[1] for p in parts])
    (loss + 3 * aux).backward()
    io |= {"ragged_ids": ragged, "ragged_lengths": torch.tensor(lengths), "ragged_loss": loss, "ragged_aux": aux}
    io |= {"grad." + k: v.grad for k, v in wide.items()}

    greedy = ids[0, :4]
    for _ in range(12):
        greedy = torch.cat([greedy, oracle.logits(greedy)[0][-1].argmax()[None]])
    io |= {"greedy_prompt": ids[:1, :4].clone(), "greedy_ids": greedy[None]}

    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors")
    narrow = lambda x: x.detach().float().contiguous() if x.is_floating_point() else x.contiguous()
    save_file({k: narrow(v) for k, v in io.items()}, folder / "io.safetensors")
    counts = [torch.bincount(r[1].flatten(), minlength=moe["n_routed_experts"]).tolist() for p in parts for r in p[1]]
    print(name, "seed", seed, "loss", loss.item(), "aux", aux.item(), "choices", counts,
          "margins", margin(config, [r[1] for r in rows]), margin(config, [p[1] for p in parts]))
    return True


if __name__ == "__main__":
    for case, settings in CASES.items():
        make(case, settings)
