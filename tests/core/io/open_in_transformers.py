"""Opens folders that save_model and save_adapter wrote with the real transformers (and PEFT, where it is installed).

  open_in_transformers.py FOLDER

For every model folder: the class that config.json names, no missing and no unexpected weights, and the same logits or
scores as the original model gave (io.safetensors), or the same weights (expected.safetensors).
Exits non-zero naming the first folder that differs.
"""

import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file


def open_model(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    model_class = getattr(transformers, config.architectures[0])
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True,
                                              attn_implementation="eager")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{folder.name}: {kind}: {info[kind]}"
    return model.eval()


def check_model(folder):
    model = open_model(folder)
    if (folder / "expected.safetensors").exists():
        state = model.state_dict()
        for name, expected in load_file(folder / "expected.safetensors").items():
            assert torch.equal(state[name], expected), f"{folder.name}: {name} differs"
        return
    io = load_file(folder / "io.safetensors")
    with torch.no_grad():
        if "scores" in io:
            hidden = model.model(input_ids=io["input_ids"]).last_hidden_state
            found, expected = model.score(hidden).squeeze(-1), io["scores"]
        else:
            found, expected = model(input_ids=io["input_ids"]).logits, io["logits"]
    worst = (found - expected).abs().max() / expected.abs().max()
    assert worst < 1e-6, f"{folder.name}: logits differ by {worst:.2e} of the largest"
    if "greedy_prompt" in io:
        ids = model.generate(io["greedy_prompt"], attention_mask=torch.ones_like(io["greedy_prompt"]), do_sample=False,
                             max_new_tokens=io["greedy_ids"].shape[1] - io["greedy_prompt"].shape[1])
        assert torch.equal(ids, io["greedy_ids"]), f"{folder.name}: another greedy answer"


def check_adapter(folder, base):
    try:
        import peft
    except ImportError:
        print("adapter: PEFT is not installed, not checked")
        return
    model = peft.PeftModel.from_pretrained(open_model(base), folder)
    state = peft.get_peft_model_state_dict(model)
    written = load_file(folder / "adapter_model.safetensors")
    for name, tensor in written.items():
        assert torch.equal(state[name], tensor), f"{folder.name}: {name} differs"
    print(f"adapter: {len(written)} matrices, as written")


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    root = pathlib.Path(sys.argv[1])
    folders = sorted(f for f in root.iterdir() if (f / "config.json").exists())
    assert len(folders) >= 13, f"{root}: {len(folders)} folders"
    for folder in folders:
        check_model(folder)
        print(folder.name, "opens and computes the same")
    check_adapter(root / "adapter", root / "llama")


if __name__ == "__main__":
    main()
