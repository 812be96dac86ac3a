"""Trains small byte-level BPE tokenizers of every kind that core/text reads and records what the reference library gives.

Run by hand: python tests/oracles/text/tokenizer_cases.py [SMOLLM2_FOLDER]   (needs tokenizers)
Writes tests/oracles/data/text/texts.json and tokenizers/NAME.json, each with the tokenizer itself and its ids; with the
folder of SmolLM2-135M-Instruct also smollm2_ids.json, its ids of every second text.
"""

import json
import sys
from pathlib import Path

import corpus
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).resolve().parent.parent / "data" / "text"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
CJK = "[一-龥ࠀ-一가-\ud7ff]+"
DEEPSEEK_V3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
               r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(use_regex=True, add_prefix_space=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


def sequence(*parts):
    return pre_tokenizers.Sequence(list(parts))


def special(content, **options):
    return AddedToken(content, special=True, normalized=False, **options)


def plain(content, **options):
    return AddedToken(content, special=False, normalized=options.pop("normalized", False), **options)


CHATML = [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>")]
LLAMA = [special(t) for t in ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]]
DEEPSEEK = [special(t) for t in ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"]] + [
    plain("<｜User｜>"), plain("<｜Assistant｜>"), plain("<think>"), plain("</think>")]
THINKING = [plain(t) for t in ["<think>", "</think>", "<tool_call>", "</tool_call>"]]
ODD = [special("<lstrip>", lstrip=True), special("<rstrip>", rstrip=True), special("<both>", lstrip=True, rstrip=True),
       special("<word>", single_word=True), plain("<think>", lstrip=True), plain("<NORM>", normalized=True),
       AddedToken("<s>", special=True, normalized=True), plain("word", single_word=True, normalized=True)]


def bos_template(token, token_id):
    return processors.TemplateProcessing(single=f"{token} $A", special_tokens=[(token, token_id)])


# name: (normalizer, pre-tokenizer, added tokens, vocabulary size, further changes)
KINDS = {
    "gpt2": (None, byte_level(), CHATML[:1], 700, {}),
    "gpt2_prefix_space": (None, byte_level(add_prefix_space=True), CHATML[:1], 400, {}),
    "smollm": (None, sequence(pre_tokenizers.Digits(individual_digits=True), byte_level()), CHATML, 700, {}),
    "digits_whole": (None, sequence(pre_tokenizers.Digits(individual_digits=False), byte_level(False)), CHATML, 400, {}),
    "llama3": (None, sequence(split(LLAMA3), byte_level(False)), LLAMA, 700, {"ignore_merges": True, "bos": 0}),
    "qwen2": (normalizers.NFC(), sequence(split(QWEN2), byte_level(False)), CHATML + THINKING, 700, {}),
    "deepseek_coder": (None, sequence(split("[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"),
                                      split(CJK.replace("\ud7ff", "\\ud7ff")),
                                      pre_tokenizers.Digits(individual_digits=True), byte_level(False)), DEEPSEEK, 500, {"bos": 0}),
    "deepseek_v3": (None, sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK_V3), byte_level(False)),
                    DEEPSEEK, 600, {"bos": 0}),
    "odd_tokens": (normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]), byte_level(), ODD, 330, {}),
    "nfd": (normalizers.NFD(), byte_level(), [], 320, {}),
    "nfkd_replace": (normalizers.Sequence([normalizers.NFKD(), normalizers.Replace(Regex(r"\s+"), " "),
                                           normalizers.Replace("--", "\u2014")]), byte_level(), [], 320, {}),
    "split_previous": (None, sequence(split(r"\s", "merged_with_previous"), byte_level(False)), [], 330, {}),
    "split_next": (None, sequence(split(r"\s", "merged_with_next"), byte_level(False)), [], 330, {}),
    "split_contiguous": (None, sequence(split(r"\s|\d", "contiguous"), byte_level(False)), [], 330, {}),
    "split_removed": (None, sequence(split(r"\s+", "removed"), byte_level(False)), [], 330, {}),
    "split_invert": (None, sequence(split(r"\w+", "removed", True), byte_level(False)), [], 330, {}),
    "split_string": (None, sequence(pre_tokenizers.Split(".", "isolated"), byte_level(False)), [], 330, {}),
    "no_alphabet": (None, byte_level(), [special("<unk>")], 200, {"alphabet": False, "unk": "<unk>"}),
    "no_unknown": (None, byte_level(), [], 200, {"alphabet": False}),
}


def train(normalizer, pre_tokenizer, added, size, changes):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if changes.get("alphabet", True) else []
    specials = [t for t in added if t.special]
    tokenizer.train_from_iterator(corpus.TRAINING, trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=sorted(alphabet), show_progress=False))
    tokenizer.add_tokens([t for t in added if not t.special])
    model = json.loads(tokenizer.to_str())
    model["model"]["ignore_merges"] = changes.get("ignore_merges", False)
    model["model"]["unk_token"] = changes.get("unk")
    tokenizer = Tokenizer.from_str(json.dumps(model))
    if "bos" in changes:
        tokenizer.post_processor = bos_template(added[changes["bos"]].content, changes["bos"])
    return tokenizer


def byte_fallback():
    """The BPE of Llama 2: characters, no pre-tokenizer, unknown ones as bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, max_token_length=8, special_tokens=[
        special("<unk>"), special("<s>"), special("</s>")] + [f"<0x{b:02X}>" for b in range(256)])
    texts = [line for text in corpus.TRAINING[:5] for line in text.split()]
    tokenizer.train_from_iterator(texts, trainer)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = described["added_tokens"][:3]  # the bytes are ordinary tokens
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.post_processor = bos_template("<s>", 1)
    return tokenizer


def record(name, tokenizer, texts, every):
    cases = []
    for text in texts[::every]:
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        with_bos = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = True
        as_text = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"ids": parsed, "decoded": tokenizer.decode(parsed, skip_special_tokens=False)}
        if as_text != parsed:
            case["as_text"] = as_text
        if with_bos != parsed:
            case["with_bos"] = with_bos
        skipped = tokenizer.decode(parsed, skip_special_tokens=True)
        if skipped != case["decoded"]:
            case["skipped"] = skipped
        if case["decoded"] == text:
            del case["decoded"]
        cases.append(case)
    tokenizer.encode_special_tokens = False
    path = OUT / "tokenizers" / f"{name}.json"
    document = {"tokenizer": json.loads(tokenizer.to_str()), "every": every, "cases": cases}
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def build(name):
    return byte_fallback() if name == "byte_fallback" else train(*KINDS[name])


def main():
    (OUT / "tokenizers").mkdir(parents=True, exist_ok=True)
    texts = corpus.all_texts()
    (OUT / "texts.json").write_text(json.dumps(texts, ensure_ascii=True, separators=(",", ":")) + "\n")
    for name in [*KINDS, "byte_fallback"]:
        # The smaller ones differ in one component; every third text is enough to show it.
        every = 3 if name in KINDS and KINDS[name][3] <= 330 and name != "odd_tokens" else 1
        record(name, build(name), texts, every)
    if len(sys.argv) > 1:
        tokenizer = Tokenizer.from_file(str(Path(sys.argv[1]) / "tokenizer.json"))
        ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts[::2]]
        (OUT / "smollm2_ids.json").write_text(json.dumps(ids, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
