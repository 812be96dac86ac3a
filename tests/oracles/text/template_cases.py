"""Renders chat templates with transformers' own environment and records the texts and the ids of the whole text.

Run by hand: python tests/oracles/text/template_cases.py   (needs transformers, jinja2, tokenizers)
Writes tests/oracles/data/text/chat_templates.json and snippets.json.
"""

import json
from pathlib import Path

import jinja2
import snippets
from tokenizers import Tokenizer
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / "data" / "text"


def message(role, content):
    return {"role": role, "content": content}


SYSTEM = message("system", "You answer briefly.\n")
CHATS = [
    [message("user", "What is 17 + 25? Answer with a number.")],
    [SYSTEM, message("user", "hi")],
    [message("user", "a"), message("assistant", "b"), message("user", " c ")],
    [SYSTEM, message("user", "\n\n  x"), message("assistant", "<think>\nhm\n</think>\n\n42"), message("user", "Why?")],
    [message("user", "q"), message("assistant", "<think>\n\n</think>\n\nanswer\n")],
    [message("user", "你好，世界"), message("assistant", "👨‍👩‍👧 é\u0301"), message("user", "")],
    [message("user", "one"), message("user", "two"), message("assistant", "three")],
    [message("system", "s1"), message("user", "u"), message("system", "s2"), message("assistant", "a")],
    [message("user", "call"), message("tool", "result 1"), message("tool", "result 2"), message("assistant", "done")],
    [message("user", "<tool_response>x</tool_response>"), message("assistant", "</think>")],
    [message("user", "{{ bos_token }} {% raw %} \"quoted\" 'x' \\n")],
    [message("assistant", "starts with the assistant")],
]
# name: (bos, eos, tokenizer of tokenizers/, variables beside the plain ones)
TEMPLATES = {
    "chatml": ("<|endoftext|>", "<|im_end|>", "smollm", []),
    "smollm2": ("<|im_start|>", "<|im_end|>", "smollm", []),
    "qwen25": ("", "<|im_end|>", "qwen2", []),
    "qwen3": ("", "<|im_end|>", "qwen2", [{"enable_thinking": False}, {"enable_thinking": True}]),
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", "llama3", []),
    "llama32": ("<|begin_of_text|>", "<|eot_id|>", "llama3", [{"date_string": "01 Jan 2025"}]),
    "llama2": ("<s>", "</s>", "byte_fallback", []),
    "deepseek_r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "deepseek_v3", []),
    "deepseek_llm": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "deepseek_coder", []),
}


class FixedClock:
    """Stands in for datetime in transformers' module: 9 March 2024, 07:05:03."""

    @staticmethod
    def now():
        import datetime
        return datetime.datetime(2024, 3, 9, 7, 5, 3)


def render(source, messages, add_generation_prompt, bos="", eos="", variables=None):
    tokens = {name: token for name, token in (("bos_token", bos), ("eos_token", eos)) if token}
    chat_template_utils.datetime = FixedClock
    texts, _ = chat_template_utils.render_jinja_template(
        conversations=[messages], chat_template=source, add_generation_prompt=add_generation_prompt, **tokens,
        **(variables or {}))
    return texts[0]


def template_record(name, bos, eos, tokenizer_name, more_variables):
    source = (HERE / "templates" / f"{name}.jinja").read_text().removesuffix("\n")
    tokenizer = Tokenizer.from_str(json.dumps(json.loads(
        (OUT / "tokenizers" / f"{tokenizer_name}.json").read_text())["tokenizer"]))
    cases = []
    for messages in CHATS:
        for prompt in (False, True):
            for variables in [{}, *more_variables]:
                case = {"messages": messages, "add_generation_prompt": prompt, "variables": variables}
                try:
                    case["text"] = render(source, messages, prompt, bos, eos, variables)
                    case["ids"] = tokenizer.encode(case["text"], add_special_tokens=False).ids
                except (jinja2.exceptions.TemplateError, TypeError) as error:
                    case["error"] = str(error)
                cases.append(case)
    return {"name": name, "source": source, "bos": bos, "eos": eos, "tokenizer": tokenizer_name, "cases": cases}


def snippet_record(source):
    try:
        return {"source": source, "text": render(source, snippets.MESSAGES, True, "<s>", "</s>", snippets.VARIABLES)}
    except Exception as error:  # whatever Python makes of it: here it must be an error too
        return {"source": source, "error": f"{type(error).__name__}: {error}"}


def write(name, document):
    (OUT / name).write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")


def main():
    write("chat_templates.json", [template_record(name, *settings) for name, settings in TEMPLATES.items()])
    write("snippets.json", {"messages": snippets.MESSAGES, "variables": snippets.VARIABLES,
                            "cases": [snippet_record(source) for source in snippets.SOURCES]})


if __name__ == "__main__":
    main()
