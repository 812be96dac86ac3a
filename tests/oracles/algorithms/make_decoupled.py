"""Decoupled PPO and its off-policy figures, written out plainly in torch, with their gradients by autograd.

Three policies: mu sampled the tokens, prox is what the update starts from, pi is trained. The clipped term is of
pi / prox, its weight prox / mu, truncated or masked, of the token or of the whole answer (2110.00641,
AReaL 2505.24298; weights beyond the cap are dropped and stay in the denominator, as in AReaL's code).

    python make_decoupled.py ../data/algorithms/decoupled.json
"""

import json
import sys

import torch

from batches import batches, jsonable, rounded


def behaviour_weight(log_r, mask, level, mode, low, high):
    if level == "sequence":
        log_r = (log_r * mask).sum(dim=1, keepdim=True).expand_as(log_r)
    r = log_r.exp()
    if mode == "truncate":
        return r.clamp(low, high)
    return torch.where((r >= low) & (r <= high), r, torch.zeros_like(r))


def decoupled(batch, level, mode, low, high, dual_clip, mean):
    pi = batch["logprobs"].clone().requires_grad_()
    prox, mu, mask = batch["old"], batch["behaviour"], batch["mask"].double()
    advantage = batch["advantages"].unsqueeze(1)
    ratio = (pi - prox).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2))
    if dual_clip:
        loss = torch.minimum(loss, dual_clip * advantage.abs())
    weight = behaviour_weight(prox - mu, mask, level, mode, low, high)
    loss = loss * weight * mask
    if mean == "dapo":
        total = loss.sum() / mask.sum()
    else:
        total = (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
    total.backward()
    counted = mask.bool()
    log_r = (prox - mu)[counted]
    r = log_r.exp()
    metrics = {"behaviour_ratio_mean": r.mean(), "behaviour_ratio_std": r.std(correction=0),
               "behaviour_ratio_max": r.max(), "behaviour_kl": (r - 1 - log_r).mean(),
               "behaviour_kl_k1": -log_r.mean(), "importance_rejected_fraction": (weight[counted] == 0).double().mean()}
    config = {"loss_type": mean, "dual_clip": dual_clip,
              "correction": {"mode": mode, "level": level, "low": low, "high": high}}
    return {"config": config, "loss": total.item(), "grad": pi.grad.tolist(),
            "metrics": {name: value.item() for name, value in metrics.items()}}


def main():
    torch.set_default_dtype(torch.float64)
    made = batches()
    cases = []
    for name, batch in made.items():
        for level, mode, low, high in (("token", "mask", 0.0, 5.0), ("token", "mask", 0.0, 1.2),
                                       ("token", "mask", 0.8, 1.2), ("token", "truncate", 0.0, 2.0),
                                       ("token", "truncate", 0.5, 1.1), ("sequence", "truncate", 0.0, 1.1),
                                       ("sequence", "mask", 0.0, 3.0), ("sequence", "mask", 0.9, 1.1)):
            for dual_clip, mean in ((0.0, "dapo"), (1.5, "dapo"), (0.0, "grpo")):
                case = decoupled(batch, level, mode, low, high, dual_clip, mean)
                cases.append({"batch": name, **{k: rounded(v) for k, v in case.items()}})
    record = {"source": f"make_decoupled.py, torch {torch.__version__}, float64",
              "batches": {name: jsonable(batch) for name, batch in made.items()}, "cases": cases}
    with open(sys.argv[1], "w") as file:
        file.write(json.dumps(record, separators=(",", ":")).replace('{"batch":', '\n{"batch":') + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
