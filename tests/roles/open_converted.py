"""Opens what `troupe convert` wrote with the real torch and transformers.

  open_converted.py CONVERTED_FOLDER ORIGINAL_MODEL

The converted Hugging Face folder computes what the original computes and tokenizes the same; MiniMind's .pth opens with
torch.load(weights_only=True) and its folder holds the same weights; YaRN is read as such. Exits non-zero naming what
differs.
"""

import pathlib
import sys

import torch
import transformers


def open_model(folder):
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True,
                                                                    attn_implementation="eager")
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], f"{folder.name}: {kind}: {info[kind]}"
    return model.eval()


def check_same(folder, original):
    ids = torch.arange(3, 200)[None]
    with torch.no_grad():
        assert torch.equal(open_model(folder)(input_ids=ids).logits, open_model(original)(input_ids=ids).logits), folder.name


def check_tokenizer(folder, original):
    found = transformers.AutoTokenizer.from_pretrained(folder)
    expected = transformers.AutoTokenizer.from_pretrained(original)
    for text in ["The tide comes in.", "潮水每天涨两次", "<|im_start|>user\n1 + 1<|im_end|>\n"]:
        assert found.encode(text) == expected.encode(text), f"{folder.name}: {text!r}"


def check_native(folder, file):
    state = torch.load(file, weights_only=True)
    model = open_model(folder)
    assert model.config.model_type == "llama" and model.config.num_key_value_heads == 2
    own = model.state_dict()
    assert set(own) == set(state), f"{folder.name}: {set(own) ^ set(state)}"
    for name, tensor in state.items():
        assert tensor.dtype == torch.float16, name
        assert torch.equal(own[name], tensor.float()), f"{folder.name}: {name}"


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    root, original = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    check_same(root / "same", original)
    for folder in ("same", "minimind"):
        check_tokenizer(root / folder, original)
    for file in ("native_32.pth", "back_32.pth"):
        check_native(root / "minimind", root / file)
    rope = open_model(root / "minimind_yarn").config.rope_parameters
    assert rope["rope_type"] == "yarn" and rope["factor"] == 16 and rope["attention_factor"] == 1, rope
    print("opened all")


if __name__ == "__main__":
    main()
