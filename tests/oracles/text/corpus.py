"""Texts that are hard for a tokenizer, and a little training text. Deterministic."""

import random

LOOKALIKES = [
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<think>", "</think>", "<tool_call>", "<s>", "</s>",
    "<unk>", "<0x41>", "[INST]", "<lstrip>", "<rstrip>", "<both>", "<word>", "<NORM>", "<norm>",
]

FIXED = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\t", "\t\t x", " \n ", "\u3000", "\u00a0", "\u2003x\u2009y",
    " a", "  a", "a ", "a  ", "a   b\n\n\n c", "hello world", " hello  world ", "Hello\nWorld\n", "a\r\nb\rc\n\rd",
    "It's we're they'll I'd I've can't won't o'clock 'tis", "IT'S WE'RE THEY'LL I'D I'VE CAN'T", "'\u017f 'S 's \u2019s",
    "The quick brown fox jumps over the lazy dog.", "1234567890", "1,000,000.00", "3.14159e-10", "0x1F4A9", "12ab34cd5",
    "2024-01-01T00:00:00Z", "\u00bd \u2167 \u0663\u0664\u0665 \u0967\u0968 \u00b2\u00b3 \u2460\u2461 \U0001d7d8",
    "$100 \u20ac50 \u00a3 \u00a5", "a+b=c; x->y; p::q; !== ??? ... --- ___", "C:\\path\\to\\file", "https://a.b/c?d=e&f=g#h",
    "def f(x):\n    return x ** 2\n\n\nclass A:\n\tpass\n", "if (a && b || !c) { x[i]++; }\n\n  // note\n", "<p class=\"x\">&amp;</p>",
    "{\"k\": [1, 2.5, null, true]}", "SELECT * FROM t WHERE a='b';", "#!/bin/sh\nset -e\n", "\\n \\t \\\\ \\u0041", "a\tb\t\tc",
    "caf\u00e9 cafe\u0301", "\u00c5ngstr\u00f6m A\u030angstro\u0308m \u212b", "\ufb01ne \ufb02ow \uff21\uff22\uff23 \u2460 \u2126 \u212a",
    "e\u0301\u0323\u0301 q\u0323\u0307 q\u0307\u0323", "\u1100\u1161\u11a8 \uac01 \ud55c\uad6d\uc5b4", "Z\u0351\u036b\u0343a\u0320\u0353l\u0326g\u0322o",
    "\u00df \u1e9e \u0130stanbul \u0131 \u01c5 \u03a3\u03c2", "\u0391\u03b8\u03ae\u03bd\u03b1 \u03b5\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3068\u30ab\u30bf\u30ab\u30ca", "\u4f60\u662f123\u8c01\uff1f abc\u4e2d\u6587def",
    "\u1019\u103c\u1014\u103a\u1019\u102c \u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8 \u0540\u0561\u0575", "\U00010400\U00010428 \U0001d54f \U00020000\U0002a6d6",
    "\U0001f600\U0001f603 \U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \u2764\ufe0f \u263a",
    "\u0000\u0001\u0002\u001b[0m\u007f", "\u0004\u0006\u0013\u001d", "a\u0085b\u2028c\u2029d", "x\u180ey \u180e z", "\u001c\u001d\u001e\u001f", "\ufeffbom \u200b\u200c\u200d\u2060",
    "\ufffd \ufffe \uffff", "\ue000 \U000f0000 \U0010ffff", "\u202eabc\u202c", "a\u0300", "\u0300a", " \u0300", "\n\u0300", "'\u0301s",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", " " * 97, "\n" * 33, "\t \t \t ", "ab" * 50, "=" * 80, "-" * 17 + ">",
    "word" + " " * 20 + "word", "line  \n   indented\n\t\ttabs  \n\n", "  \n  \n\n  x", "trailing space \n", "no newline at end", "I'm'll've'd're",
    "\u00a0\u00a0a\u00a0 b", "a\u3000\u3000b", "don\u2019t \u201cquote\u201d \u2018x\u2019 \u2026 \u2014 \u2013", "\uff01\uff1f\uff1b \u3001\u3002\u300c\u300d", "[a](b) *c* `d` ~e~ ^f^ |g|",
    "x=1;y=2;z=x+y", "foo_bar fooBar FooBar FOO_BAR foo-bar", "\u0345 \u24d0\u24b6 \u2170", "O\u0308zil \u1e9b\u0323",
    "The the THE tHe", "a.b.c...d", "mail@example.com", "~/.config", "100%", "50/50", "#hashtag @user", "\\(x^2\\) $$y$$",
]

TRAINING = [
    "The quick brown fox jumps over the lazy dog. It's what they'll say when we're gone, and I've said it before.",
    "What is 17 + 25? Answer with a number. The answer is 42. 1 2 3 10 100 1000 2024",
    "You are a helpful assistant. user system assistant\nHello world, hello there, how are you today?",
    "def main():\n    for i in range(10):\n        print(i)\n    return None\n\nclass Thing:\n    pass\n",
    "int main() { return 0; }  // comment\n#include <stdio.h>\n\n\n    indented    text\n\t\ttabs\n",
    "Привет мир, как дела? Ελληνικά και άλλα. Grüße aus Köln, café, naïve, Ångström.",
    "你好，世界。你是谁？我是一个助手。日本語のテキスト。 한국어 텍스트입니다.",
    "😀 😃 👍 ❤️ 👨‍👩‍👧 emoji text; symbols ++ -- == != <= >= && || -> => ... ---",
]


def lookalike_texts():
    texts = []
    for token in LOOKALIKES:
        texts += [token, f"a{token}b", f" {token} ", f"{token}{token}", f"x\n{token}\ny", token[:-1], token[1:]]
    texts += ["<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_<|im_end|>end|>", "<|endoftext|<|endoftext|>",
              "<|IM_START|>", "< |im_start|>", "a <both> <both> b", "a<word>b a <word> b <word>", "  <lstrip>  <rstrip>  x"]
    return texts


def random_texts(count, pieces, seed):
    rng = random.Random(seed)
    atoms = FIXED + LOOKALIKES + TRAINING + list("aZ9 \n\t'<>|_é中😀") + [" "] * 20
    return ["".join(rng.choice(atoms)[: rng.randint(1, 12)] for _ in range(pieces)) for _ in range(count)]


def all_texts():
    return FIXED + TRAINING + lookalike_texts() + random_texts(40, 12, seed=7)
