"""Writes tests/oracles/data/evaluate/: a tiny chat model and what transformers says of texts and questions with it.

  model/           Hugging Face folder: llama, 2 layers, a byte-level BPE vocabulary of 320, a chat template
  text.txt         the text of the perplexities
  texts.jsonl      several texts, one of them of a single token
  questions.jsonl  multiple choice
  expected.json    perplexity: per case max_length, stride, bos and texts (which file), tokens, scored, windows, sum
                   choice: per case the flags, the prompt's text of each question and the scores of its candidates

Log-probabilities are log_softmax in float64 of the float32 logits. Windows: [k s, k s + L), each scoring what no window
before it had, as the perplexity recipe of transformers' documentation goes. Run by hand:
  python tests/oracles/evaluate/make_evaluation.py
Made with torch 2.11.0, transformers 5.23.0, tokenizers 0.23.
"""
import json
import shutil
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = Path(__file__).resolve().parents[1] / "data" / "evaluate"
TEXT = ("The tide comes in twice a day, and the harbour fills. 潮水每天涨两次，港口随之注满。\n"
        "Answer: A ship that waits for the tide is never late.\nAnswer: B. 等待潮水的船从不迟到。\n"
        "Numbers: 12, 345, 6789. Quotes: \"left\" and 'right'. Code: for i in range(10): print(i * i)\n")
TEXTS = ["A short one.", "x", TEXT[:150], "答案：A", TEXT]
QUESTIONS = [
    {"question": "Which planet is nearest to the sun?", "choices": ["Venus", "Mercury", "Mars", "Earth"], "answer": "B"},
    {"question": "  2 + 3 = ?\n", "choices": ["4", "5", "6", "7"], "answer": 1},
    {"question": "水的化学式是什么？", "choices": ["CO2", "H2O", "O2", "NaCl"], "answer": "b"},
    {"question": "The tide comes in", "choices": ["twice a day", "never"], "answer": 0},
    {"question": "Pick the last.", "choices": ["one", "two", "three", "four", "five and more"], "answer": "E"},
]
EXAMPLES = [
    {"question": "1 + 1 = ?", "choices": ["2", "3", "4", "5"], "answer": "A"},
    {"question": "Grass is", "choices": ["red", "green"], "answer": "B"},
]
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}")


def make_tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    bpe.train_from_iterator([TEXT] * 4 + [q["question"] for q in QUESTIONS], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=TEMPLATE, clean_up_tokenization_spaces=False)


def make_model(vocab_size):
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, tie_word_embeddings=True, attn_implementation="eager"))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(1 + 0.2 * noise if "norm" in name else 0.5 * noise if "embed" in name
                    else noise * 1.2 / p.shape[1] ** 0.5)
    return model.eval()


@torch.no_grad()
def logprobs(model, ids):
    """[T - 1]: of each token but the first."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def perplexity(model, tokenizer, texts, length, stride, bos):
    tokens = scored = windows = 0
    total = 0.0
    for text in texts:
        ids = ([tokenizer.bos_token_id] if bos else []) + tokenizer.encode(text, add_special_tokens=False)
        tokens += len(ids)
        done = 1
        for begin in range(0, len(ids), stride):
            if done >= len(ids):
                break
            end = min(begin + length, len(ids))
            total += logprobs(model, ids[begin:end])[done - end:].sum().item()
            scored += end - done
            windows += 1
            done = end
    return dict(tokens=tokens, scored=scored, windows=windows, sum=total)


def asked(q, cue, options):
    lines = [q["question"].strip()]
    if not options:
        lines += [f"{chr(65 + i)}. {c.strip()}" for i, c in enumerate(q["choices"])]
    return "\n".join(lines + [cue])


def candidate(q, i, space, options):
    return (" " if space else "") + (q["choices"][i].strip() if options else chr(65 + i))


def right(q):
    return q["answer"] if isinstance(q["answer"], int) else ord(q["answer"].upper()) - 65


def choice(model, tokenizer, cue, space, options, normalise, shots, bos):
    prompts, scores = [], []
    for q in QUESTIONS:
        prompt = "".join(asked(e, cue, options) + candidate(e, right(e), space, options) + "\n\n"
                         for e in EXAMPLES[:shots]) + asked(q, cue, options)
        ids = ([tokenizer.bos_token_id] if bos else []) + tokenizer.encode(prompt, add_special_tokens=False)
        row = []
        for i in range(len(q["choices"])):
            tail = tokenizer.encode(candidate(q, i, space, options), add_special_tokens=False)
            values = logprobs(model, ids + tail)[-len(tail):]
            row.append((values.mean() if normalise else values.sum()).item())
        prompts.append(prompt)
        scores.append(row)
    return dict(prompts=prompts, scores=scores)


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    model.save_pretrained(OUT / "model")
    tokenizer.save_pretrained(OUT / "model")
    (OUT / "text.txt").write_text(TEXT, encoding="utf-8")
    lines = lambda rows: "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    (OUT / "texts.jsonl").write_text(lines({"text": t} for t in TEXTS), encoding="utf-8")
    (OUT / "questions.jsonl").write_text(lines(QUESTIONS), encoding="utf-8")
    (OUT / "examples.jsonl").write_text(lines(EXAMPLES), encoding="utf-8")
    expected = {"perplexity": [], "choice": []}
    for length, stride, bos, file in [(64, 32, False, "text.txt"), (512, 256, False, "text.txt"), (50, 7, True, "text.txt"),
                                      (2, 1, False, "text.txt"), (64, 48, False, "texts.jsonl"),
                                      (64, 48, True, "texts.jsonl")]:
        texts = [TEXT] if file == "text.txt" else TEXTS
        expected["perplexity"].append(dict(max_length=length, stride=stride, bos=bos, texts=file,
                                           **perplexity(model, tokenizer, texts, length, stride, bos)))
    for cue, space, options, normalise, shots, bos in [("答案：", False, False, False, 0, False),
                                                       ("Answer:", True, False, False, 2, False),
                                                       ("Answer:", True, True, False, 0, True),
                                                       ("Answer:", True, True, True, 1, False)]:
        expected["choice"].append(dict(cue=cue, space=space, options=options, normalise=normalise, shots=shots, bos=bos,
                                       **choice(model, tokenizer, cue, space, options, normalise, shots, bos)))
    (OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
