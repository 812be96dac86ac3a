"""Runs OpenRLHF's own policy loss and KL estimators and records what they give.

Needs the openrlhf==0.11.2 wheel unpacked somewhere (not installed) and torch on the CPU:
    python make_openrlhf.py WHEEL_FOLDER/openrlhf ../data/algorithms/openrlhf.json

Two files are loaded by path, with deepspeed (which they import and do not use here) left empty.
"""

import importlib.util
import json
import pathlib
import sys
import types

import torch

from batches import batches, jsonable, rounded


def load(folder):
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    package = types.ModuleType("openrlhf_models")
    package.__path__ = [str(folder / "models")]
    sys.modules["openrlhf_models"] = package
    loaded = []
    for name in ("utils", "loss"):
        spec = importlib.util.spec_from_file_location(f"openrlhf_models.{name}", folder / "models" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        loaded.append(module)
    return loaded


def policy(loss, batch, ours, **theirs):
    logprobs = batch["logprobs"].clone().requires_grad_()
    mask = batch["mask"].double()
    value = loss.PolicyLoss(**theirs)(logprobs, batch["old"], batch["advantages"].unsqueeze(1), mask,
                                      batch["behaviour"], global_batch_size=len(batch["lengths"]),
                                      batch_num_tokens=mask.sum())[0]
    value.backward()
    return {"config": ours, "loss": value.item(), "grad": logprobs.grad.tolist()}


def kl(utils, loss, batch, ours, **theirs):
    logprobs = batch["logprobs"].clone().requires_grad_()
    value = utils.compute_approx_kl(logprobs, batch["reference"], **theirs)
    mean = loss.aggregate_loss(value, batch["mask"].double(), batch_num_tokens=batch["mask"].sum().double())
    mean.backward()
    return {"config": ours, "kl": mean.item(), "grad": logprobs.grad.tolist()}


def policy_cases(loss, batch):
    run = lambda ours, **theirs: policy(loss, batch, ours, **theirs)
    yield run({"loss_type": "dapo"})
    yield run({"loss_type": "grpo"}, token_level_loss=False)
    yield run({"loss_type": "dapo", "clip_high": 0.28}, clip_eps_high=0.28)
    yield run({"loss_type": "dapo", "dual_clip": 3.0}, dual_clip=3.0)
    yield run({"loss_type": "grpo", "dual_clip": 1.3}, dual_clip=1.3, token_level_loss=False)
    yield run({"loss_type": "grpo", "importance_level": "sequence"}, policy_loss_type="gspo")
    for level, mode, gating, low, high in (
            ("token", "clip", "ratio", 0.5, 5.0), ("token", "clip", "ratio", 0.9, 1.1),
            ("token", "mask", "ratio", 0.5, 1.5), ("token", "mask", "ratio", 0.8, 1.2),
            ("seq", "mask", "ratio", 0.5, 5.0), ("seq", "mask", "ratio", 0.85, 1.05),
            ("token", "mask", "binary_kl", 0.0, 0.02), ("seq", "mask", "binary_kl", 0.0, 0.05),
            ("seq", "mask", "binary_kl", 0.0, 0.01), ("token", "mask", "tv", 0.0, 0.1),
            ("seq", "mask", "tv", 0.0, 0.06)):
        correction = {"mode": {"clip": "truncate", "mask": "mask"}[mode],
                      "level": {"token": "token", "seq": "geometric"}[level],
                      "statistic": {"tv": "total_variation"}.get(gating, gating), "low": low, "high": high}
        for ours, token_level in (("dapo", True), ("grpo", False)):
            yield run({"loss_type": ours, "correction": correction}, token_level_loss=token_level,
                      is_correction_level=level, is_correction_mode=mode, is_correction_gating=gating,
                      is_correction_threshold=[low, high])


def kl_cases(utils, loss, batch):
    for estimator in ("k1", "k2", "k3"):
        ours = {"kl_estimator": estimator, "kl_clamp": 10.0, "kl_times_ratio": False}
        yield kl(utils, loss, batch, ours, kl_estimator=estimator)
        yield kl(utils, loss, batch, {**ours, "kl_unbiased_gradient": True}, kl_estimator=estimator,
                 log_probs_old=batch["old"], unbiased_gradient=True)


def main():
    torch.set_default_dtype(torch.float64)  # literals in their code become tensors of it
    utils, loss = load(pathlib.Path(sys.argv[1]))
    made = batches()
    # Differences beyond the clamp of the KL on either side.
    made["small"]["logprobs"][1][0] = -12.0
    made["small"]["reference"][0][2] = -25.0
    tag = lambda name, cases: [{"batch": name, **{k: rounded(v) for k, v in case.items()}} for case in cases]
    record = {"source": f"OpenRLHF 0.11.2, torch {torch.__version__}; losses float64, KL float32",
              "batches": {name: jsonable(batch) for name, batch in made.items()},
              "losses": [c for name, b in made.items() for c in tag(name, policy_cases(loss, b))],
              "kls": [c for name, b in made.items() for c in tag(name, kl_cases(utils, loss, b))]}
    with open(sys.argv[2], "w") as file:
        file.write(json.dumps(record, separators=(",", ":")).replace('{"batch":', '\n{"batch":') + "\n")
    print(len(record["losses"]), "losses,", len(record["kls"]), "KLs")


if __name__ == "__main__":
    main()
