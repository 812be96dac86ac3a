"""Makes tests/oracles/data/text/bpe_training.json: vocabularies as the `tokenizers` library trains them.

  make_bpe_training.py    (tokenizers)

Each case: texts, or the rule by which both sides make them; the options; the merges' digest and the whole
tokenizer.json's.
"""

import hashlib
import json
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

DATA = pathlib.Path(__file__).parent.parent / "data/text"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MASK = 2**64 - 1


def mixed(x):
    """splitmix64's finaliser, as in core/data/mixing.hpp."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def made_texts(rule):
    """Words of few letters: many pairs are equally frequent, and many tokens can be made in several ways."""
    letters, texts, at = rule["letters"], [], rule["seed"]
    for _ in range(rule["texts"]):
        text = ""
        for _ in range(rule["words"]):
            at += 1
            length = 1 + mixed(at) % rule["longest"]
            for _ in range(length):
                at += 1
                text += letters[mixed(at) % len(letters)]
            text += " "
        texts.append(text)
    return texts


def train(texts, vocab_size, min_frequency, special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special,
                                  show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer.to_str(pretty=True)


def main():
    cases = [
        {"name": "oracle texts", "file": "texts.json", "vocab_size": 700},
        {"name": "oracle texts until no pair is left", "file": "texts.json", "vocab_size": 100000},
        {"name": "minimum frequency", "file": "texts.json", "vocab_size": 2000, "min_frequency": 3},
        {"name": "nothing to learn from", "texts": [], "vocab_size": 300},
        {"name": "only the alphabet", "texts": ["hello"], "vocab_size": 259},
        {"name": "no special tokens", "texts": ["low lower lowest newest widest " * 3], "vocab_size": 280, "special": []},
        {"name": "ties", "texts": ["ab cd ef gh", "hg fe dc ba", "ac bd", "aaaa aaa aa a aaaaaaa", "ababab bababa"],
         "vocab_size": 300},
        {"name": "multilingual", "vocab_size": 420,
         "texts": ["床前明月光，疑是地上霜。举头望明月，低头思故乡。", "Der schnelle braune Fuchs; die schnelle braune Füchsin.",
                   "быстрая коричневая лиса, быстрая лиса", "いろはにほへと ちりぬるを", "नमस्ते दुनिया नमस्ते", "🙂🙂🙂 👨‍👩‍👧 🙂"]},
    ]
    for seed, letters in enumerate(["a", "ab", "abc", "abcde", "ab\n", "你好ab", "aAéß", "xyz0123456789"]):
        rule = {"letters": letters, "seed": 1000 * seed, "texts": 20, "words": 60, "longest": 12}
        cases.append({"name": f"made of '{letters}'".replace("\n", "newline"), "made": rule, "vocab_size": 600})
    for case in cases:
        texts = (json.loads((DATA / case["file"]).read_text()) if "file" in case else
                 made_texts(case["made"]) if "made" in case else case["texts"])
        found = {train(texts, case["vocab_size"], case.get("min_frequency", 0), case.get("special", SPECIAL))
                 for _ in range(5)}
        assert len(found) == 1, f"{case['name']}: the library itself gives {len(found)} different answers"
        (text,) = found
        tokenizer = json.loads(text)
        case["merges"] = [" ".join(merge) for merge in tokenizer["model"]["merges"]][:40]
        case["num_tokens"] = len(tokenizer["model"]["vocab"])
        case["tokenizer_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        print(case["name"], case["num_tokens"], len(tokenizer["model"]["merges"]))
    (DATA / "bpe_training.json").write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
