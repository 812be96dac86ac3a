"""Opens saved tokenizers with transformers and compares what they give with expected.json beside them."""

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
from transformers import AutoTokenizer  # noqa: E402

root = Path(sys.argv[1])
expected = json.loads((root / "expected.json").read_text())
for case in expected["tokenizers"]:
    tokenizer = AutoTokenizer.from_pretrained(root / case["folder"])
    for text, ids in zip(expected["texts"], case["ids"], strict=True):
        found = tokenizer.encode(text, add_special_tokens=False)
        assert found == ids, (case["folder"], text, found, ids)
    assert tokenizer.encode("hello") == case["with_bos"], (case["folder"], tokenizer.encode("hello"), case["with_bos"])
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "you"}]
    found = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False)
    assert found == case["chat"], (case["folder"], found, case["chat"])
    roles = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    for role, token_id in roles.items():
        assert token_id == case[role], (case["folder"], role, token_id, case[role])
