"""Writes tests/oracles/data/io/gguf_blocks.safetensors: random bytes of each quantised type and what they stand for
according to the `gguf` Python package.

Run by hand: python tests/oracles/io/make_gguf_blocks.py   (gguf 0.19)

TYPE.bytes uint8 [n], TYPE.values float32 [m]. The blocks' scales are finite halves of all signs and magnitudes,
subnormals and zeros among them; everything else is any bits.
"""

import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[1] / "data" / "io"
BLOCKS = 6
# Where the halves stand in a block.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208]}


def main():
    random = np.random.default_rng(7)
    tensors = {}
    for name in ["F32", "F16", "BF16", *HALVES]:
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = BLOCKS if elements > 1 else 96
        raw = random.integers(0, 256, (blocks, size), dtype=np.uint8)
        for at in HALVES.get(name, []):
            halves = random.integers(0, 1 << 16, blocks, dtype=np.uint16)
            halves &= np.uint16(0xBFFF)  # below 2: no infinity, no NaN
            halves[0] &= np.uint16(0x83FF)  # subnormal
            halves[1] = 0
            raw[:, at:at + 2] = halves.view(np.uint8).reshape(blocks, 2)
        if elements == 1:  # no NaN, so that values can be compared by ==
            top = raw[:, -1]
            raw[:, -1] = np.where((top & 0x7F) >= (0x7C if name == "F16" else 0x7F), top & 0x83, top)
            if name == "F16":
                raw[:8] = np.arange(8, dtype=np.uint16).view(np.uint8).reshape(8, 2)  # zero and subnormals
        flat = raw.reshape(1, -1)
        tensors[name + ".bytes"] = flat.reshape(-1).copy()
        tensors[name + ".values"] = gguf.quants.dequantize(
            flat.view(np.float32 if name == "F32" else np.float16 if name == "F16" else np.uint8), kind
        ).astype(np.float32).reshape(-1)
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / "gguf_blocks.safetensors")
    print({k: v.shape for k, v in tensors.items()})


if __name__ == "__main__":
    main()
