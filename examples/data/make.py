#!/usr/bin/env python3
"""Makes the example data sets beside this file: raw texts, chats, preferences, reasoning, prompts.

  make.py [--sources FOLDER]

The texts come from Debian 12 packages (fortunes-zh, bible-kjv, bible-kjv-text, miscfiles), which are fetched with
apt-get and unpacked into FOLDER (a scratch folder by default); nothing of them is installed. Everything else is written
by this script. The same packages give the same bytes. README.md names sources and licences.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import random
import re
import subprocess
import tempfile

HERE = pathlib.Path(__file__).parent
PACKAGES = ("fortunes-zh", "bible-kjv", "bible-kjv-text", "miscfiles")
NAME, NAME_ZH = "Troupe", "小团"
MAX_TEXT = 280  # characters of a raw text

# ---- numbers ---------------------------------------------------------------------------------------------------------

ONES = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen").split()
TENS = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()
DIGITS_ZH = "零一二三四五六七八九"


def english(n):
    if n < 20:
        return ONES[n]
    return TENS[n // 10] + ("-" + ONES[n % 10] if n % 10 else "")


def chinese(n):
    if n < 10:
        return DIGITS_ZH[n]
    tens = "" if n < 20 else DIGITS_ZH[n // 10]
    return tens + "十" + (DIGITS_ZH[n % 10] if n % 10 else "")


class Sum:
    """One problem; a problem and its mirror image are on the same side, in every data set."""

    WORDS = {"+": ("plus", "加"), "-": ("minus", "减"), "*": ("times", "乘")}

    def __init__(self, a, op, b):
        self.a, self.op, self.b = a, op, b
        self.result = {"+": a + b, "-": a - b, "*": a * b}[op]
        low, high = sorted((a, b))
        digest = hashlib.sha256(f"{low}{op}{high}".encode()).digest()
        self.held_out = digest[0] % 10 == 0

    def english(self):
        return f"{english(self.a)} {self.WORDS[self.op][0]} {english(self.b)}"

    def chinese(self):
        return f"{chinese(self.a)}{self.WORDS[self.op][1]}{chinese(self.b)}"

    def digits(self):
        return f"{self.a} {self.op} {self.b}"

    def wrong(self, rng):
        return rng.choice([n for n in range(max(0, self.result - 5), self.result + 6) if n != self.result])


def all_sums():
    sums = [Sum(a, "+", b) for a in range(21) for b in range(21)]
    sums += [Sum(a, "-", b) for a in range(21) for b in range(a + 1)]
    return sums + [Sum(a, "*", b) for a in range(1, 10) for b in range(1, 10)]


def sentence(text):
    return text[0].upper() + text[1:] + "."


# ---- raw texts -------------------------------------------------------------------------------------------------------


def fetch(folder):
    for package in PACKAGES:
        if (folder / package).exists():
            continue
        subprocess.run(["apt-get", "download", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg", "-x", archive.name, package], cwd=folder, check=True)


def poems(folder):
    """(title, author, verses) of the Tang and Song anthologies."""
    found = []
    for name in ("tang300", "song100"):
        text = (folder / "fortunes-zh/usr/share/games/fortunes" / name).read_text(encoding="utf-8")
        for block in text.split("\n%\n"):
            block = re.sub(r"\x1b\[[0-9;]*m", "", block)
            title = re.search(r"《(.+?)》", block)
            author = re.search(r"作者[：:]\s*([^（(\s]+)", block)
            body = [line.strip() for line in block.splitlines() if not re.search(r"《|作者", line)]
            verses = [line for line in body if re.fullmatch(r"[\u4e00-\u9fff，。？！；、：]+", line) and line[-1] in "，。？！；："]
            if title and author and len(verses) >= 2:
                found.append((title[1].split("・")[0], author[1], verses))
    return found


BOOKS = (("Genesis", "gen1:1-30:43"), ("Psalms", "ps1:1-41:13"), ("Proverbs", "prov1:1-31:31"),
         ("Ecclesiastes", "eccl1:1-12:14"), ("Matthew", "mat1:1-28:20"), ("Luke", "luke1:1-24:53"))


def bible(folder):
    """Passages of the King James Version of up to MAX_TEXT characters."""
    program, data = folder / "bible-kjv/usr/bin/bible", folder / "bible-kjv-text/usr/lib"
    passages = []
    for book, chapters in BOOKS:
        text = subprocess.run([program, "-l100000", "-p", data, chapters], check=True, capture_output=True,
                              stdin=subprocess.DEVNULL).stdout.decode("ascii")
        passage = ""
        for line in text.splitlines():
            verse = re.match(r"\s*\d+ (.+)", line)
            if passage and (verse is None and line.strip() or verse and len(passage) + len(verse[1]) > MAX_TEXT):
                passages.append(passage)
                passage = ""
            if verse:
                passage += (" " if passage else "") + re.sub(r"[\[\]]", "", verse[1]).strip()
        passages += [passage] if passage else []
        assert len(passages) > 20, book
    return passages


def founding_documents(folder):
    passages = []
    for name in ("us-constitution.gz", "us-declaration.gz"):
        text = gzip.open(folder / "miscfiles/usr/share/state" / name, "rt", encoding="utf-8").read()
        for paragraph in re.split(r"\n\s*\n", text):
            passage = ""
            for piece in re.split(r"(?<=[.;:,]) ", " ".join(paragraph.split())):
                if passage and len(passage) + len(piece) > MAX_TEXT:
                    passages.append(passage)
                    passage = ""
                passage += (" " if passage else "") + piece
            if len(passage) > 40:
                passages.append(passage)
    return passages


def plain_statements(sums, rng):
    """Sums as statements, a few a text; only those that are not held out."""
    statements = []
    for _ in range(900):
        some = rng.sample(sums, 4)
        statements.append(" ".join(sentence(f"{s.english()} is {english(s.result)}") for s in some))
        statements.append("".join(f"{s.chinese()}等于{chinese(s.result)}。" for s in some))
    for question, answer, question_zh, answer_zh in FACTS:
        statements += [answer, answer_zh]
    return statements


# ---- chats -----------------------------------------------------------------------------------------------------------

FACTS = [
    ("What colour is the sky on a clear day?", "On a clear day the sky is blue.", "晴天的天空是什么颜色？", "晴天的天空是蓝色的。"),
    ("What colour is grass?", "Grass is green.", "草是什么颜色的？", "草是绿色的。"),
    ("How many days are in a week?", "There are seven days in a week.", "一个星期有几天？", "一个星期有七天。"),
    ("How many months are in a year?", "There are twelve months in a year.", "一年有几个月？", "一年有十二个月。"),
    ("Which day comes after Monday?", "Tuesday comes after Monday.", "星期一的后一天是星期几？", "星期一的后一天是星期二。"),
    ("Which month comes after March?", "April comes after March.", "三月之后是几月？", "三月之后是四月。"),
    ("What is the opposite of hot?", "The opposite of hot is cold.", "热的反义词是什么？", "热的反义词是冷。"),
    ("What is the opposite of big?", "The opposite of big is small.", "大的反义词是什么？", "大的反义词是小。"),
    ("What is the opposite of up?", "The opposite of up is down.", "上的反义词是什么？", "上的反义词是下。"),
    ("What is the capital of China?", "The capital of China is Beijing.", "中国的首都是哪里？", "中国的首都是北京。"),
    ("What is the capital of France?", "The capital of France is Paris.", "法国的首都是哪里？", "法国的首都是巴黎。"),
    ("What is the capital of Japan?", "The capital of Japan is Tokyo.", "日本的首都是哪里？", "日本的首都是东京。"),
    ("What is the capital of Germany?", "The capital of Germany is Berlin.", "德国的首都是哪里？", "德国的首都是柏林。"),
    ("What does the sun give us?", "The sun gives us light and warmth.", "太阳给我们带来什么？", "太阳给我们带来光和热。"),
    ("Where do fish live?", "Fish live in water.", "鱼生活在哪里？", "鱼生活在水里。"),
    ("What do bees make?", "Bees make honey.", "蜜蜂会做什么？", "蜜蜂会酿蜜。"),
    ("How many legs does a spider have?", "A spider has eight legs.", "蜘蛛有几条腿？", "蜘蛛有八条腿。"),
    ("What is ice made of?", "Ice is made of frozen water.", "冰是由什么变成的？", "冰是由水变成的。"),
]

IDENTITY = [
    ("Who are you?", "I am {name}, a small language model that was trained from scratch.",
     "你是谁？", "我是{name}，一个从零开始训练的小语言模型。"),
    ("What is your name?", "My name is {name}.", "你叫什么名字？", "我叫{name}。"),
    ("What can you do?", "I can do small sums, continue old poems and answer simple questions.",
     "你会做什么？", "我会做简单的算术，会接古诗，也会回答简单的问题。"),
    ("Are you a human?", "No, I am {name}, a language model.", "你是人类吗？", "不是，我是{name}，一个语言模型。"),
    ("Hello!", "Hello! I am {name}. How can I help you?", "你好！", "你好！我是{name}，有什么可以帮你的吗？"),
    ("Thank you!", "You are welcome.", "谢谢！", "不客气。"),
    ("Goodbye!", "Goodbye, and good luck.", "再见！", "再见，祝你好运。"),
]

POLITE = ["{}", "Please tell me: {}", "I have a question. {}", "Quick question: {}"]
POLITE_ZH = ["{}", "请问，{}", "我想知道：{}", "请告诉我，{}"]


def message(role, content):
    return {"role": role, "content": content}


def chat(*turns):
    return {"conversations": [message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns)]}


def sum_question(s, rng):
    """(question, answer) in words; in English or Chinese."""
    if rng.random() < 0.5:
        ask = rng.choice(["What is {}?", "How much is {}?", "Can you work out {}?"]).format(s.english())
        return ask, sentence(f"{s.english()} is {english(s.result)}"), "en"
    ask = rng.choice(["{}等于几？", "请问{}是多少？", "算一算：{}。"]).format(s.chinese())
    return ask, f"{s.chinese()}等于{chinese(s.result)}。", "zh"


def verse_pairs(all_poems):
    """(half verse, the half after it) of verses in two halves; the first half belongs to one poem only."""
    pairs, count = [], {}
    for _, _, verses in all_poems:
        for verse in verses:
            halves = re.fullmatch(r"([\u4e00-\u9fff]{5,7})，([\u4e00-\u9fff]{5,7})[。？！；]", verse)
            if halves:
                pairs.append((halves[1], verse.split("，")[1]))
                count[halves[1]] = count.get(halves[1], 0) + 1
    return [pair for pair in pairs if count[pair[0]] == 1]


def question_and_answer(question, answer, templates, rng):
    return chat(rng.choice(templates).format(question), answer)


def identity_chats(name, name_zh, copies, rng):
    chats = []
    for _ in range(copies):
        for question, answer, question_zh, answer_zh in IDENTITY:
            chats.append(question_and_answer(question, answer.format(name=name), POLITE, rng))
            chats.append(question_and_answer(question_zh, answer_zh.format(name=name_zh), POLITE_ZH, rng))
    return unique(chats)


def sft(sums, all_poems, rng):
    chats = [chat(*sum_question(s, rng)[:2]) for s in sums for _ in range(3)]
    for first, second in rng.sample(verse_pairs(all_poems), 500):
        chats.append(chat(f"“{first}”的下一句是什么？", f"“{first}”的下一句是“{second}”"))
    for title, author, verses in all_poems:
        chats.append(chat(f"《{title}》的作者是谁？", f"《{title}》的作者是{author}。"))
    for question, answer, question_zh, answer_zh in FACTS * 6:
        chats.append(question_and_answer(question, answer, POLITE, rng))
        chats.append(question_and_answer(question_zh, answer_zh, POLITE_ZH, rng))
    chats += identity_chats(NAME, NAME_ZH, 8, rng)
    for _ in range(300):  # two turns
        turns = []
        for s in rng.sample(sums, 2):
            turns += sum_question(s, rng)[:2]
        chats.append(chat(*turns))
    return unique(chats)


def flawed(answer, s, language, rng):
    """Why the answer is worse is plain to see: wrong, endless, rude, or broken off."""
    wrong = (sentence(f"{s.english()} is {english(s.wrong(rng))}") if language == "en"
             else f"{s.chinese()}等于{chinese(s.wrong(rng))}。")
    separator = " " if language == "en" else ""
    return rng.choice([wrong, wrong, separator.join([answer] * 4), answer[:len(answer) // 2],
                       "I do not care." if language == "en" else "我不想回答。"])


def preferences(sums, rng):
    pairs = []
    for s in sums:
        question, answer, language = sum_question(s, rng)
        pairs.append({"chosen": chat(question, answer)["conversations"],
                      "rejected": chat(question, flawed(answer, s, language, rng))["conversations"]})
    return unique(pairs)


def reasoned(thought, answer):
    return f"<think>\n{thought}\n</think>\n<answer>\n{answer}\n</answer>"


STORIES = [
    ("+", "Anna has {a} apples and gets {b} more. How many apples has she now?",
     "She starts with {a} and {b} are added: {a} + {b} = {r}.", "Anna has {r} apples."),
    ("-", "A box holds {a} pens and {b} are taken out. How many pens are left?",
     "There were {a} and {b} go away: {a} - {b} = {r}.", "{r} pens are left."),
    ("*", "There are {a} bags with {b} nuts in each. How many nuts are there?",
     "There are {a} times {b} nuts: {a} * {b} = {r}.", "There are {r} nuts."),
    ("+", "小明有{a}个苹果，又得到{b}个。他现在有几个苹果？", "原来有{a}个，又加上{b}个：{a} + {b} = {r}。", "小明有{r}个苹果。"),
    ("-", "盒子里有{a}支笔，拿走了{b}支。还剩几支？", "原来有{a}支，拿走{b}支：{a} - {b} = {r}。", "还剩{r}支笔。"),
    ("*", "有{a}个袋子，每个袋子里有{b}颗糖。一共有几颗糖？", "{a}个袋子，每袋{b}颗：{a} * {b} = {r}。", "一共有{r}颗糖。"),
]


def stories(sums):
    for s in sums:
        for op, question, thought, answer in STORIES:
            if op == s.op:
                yield [text.format(a=s.a, b=s.b, r=s.result) for text in (question, thought, answer)]


def reasoning(sums):
    return unique([chat(question, reasoned(thought, answer)) for question, thought, answer in stories(sums)])


def prompts(sums):
    return unique([chat(f"What is {s.digits()}?", str(s.result)) for s in sums] +
                  [chat(f"{s.digits()} 等于多少？", str(s.result)) for s in sums])


# ---- files -----------------------------------------------------------------------------------------------------------


def unique(samples):
    seen, kept = set(), []
    for sample in samples:
        key = json.dumps(sample, ensure_ascii=False)
        if key not in seen:
            seen.add(key)
            kept.append(sample)
    return kept


def write(name, samples, rng, limit=None):
    samples = unique(samples)
    rng.shuffle(samples)
    samples = samples[:limit]
    lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
    (HERE / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"{name}: {len(lines)} lines, {(HERE / name).stat().st_size} bytes")
    return set(lines)


def questions(lines):
    """What is asked in a set: the first message of the user."""
    asked = set()
    for line in lines:
        sample = json.loads(line)
        asked.add((sample.get("conversations") or sample["chosen"])[0]["content"])
    return asked


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sources", type=pathlib.Path, help="folder of the unpacked packages")
    folder = arguments.parse_args().sources or pathlib.Path(tempfile.mkdtemp(prefix="troupe-sources-"))
    folder.mkdir(parents=True, exist_ok=True)
    fetch(folder)
    rng = random.Random(42)
    sums = all_sums()
    train, held_out = [s for s in sums if not s.held_out], [s for s in sums if s.held_out]
    all_poems = poems(folder)

    english_texts = bible(folder) + founding_documents(folder)
    poem_texts = [f"《{title}》{author}\n" + "\n".join(verses) for title, author, verses in all_poems]
    rng.shuffle(english_texts)
    # A poem is learnt by heart where it is met often: it stands as a whole and in halves.
    poem_texts += ["\n".join(verses[i:i + 4]) for _, _, verses in all_poems for i in range(0, len(verses), 4)]
    raw = [{"text": t} for t in english_texts[:-80] + poem_texts + plain_statements(train, rng)]
    held = [{"text": t} for t in english_texts[-80:]]
    assert not write("pretrain.jsonl", raw, rng) & write("pretrain_heldout.jsonl", held, rng)

    for name, of_train, of_held_out in (
            ("sft", sft(train, all_poems, rng), [chat(*sum_question(s, rng)[:2]) for s in held_out]),
            ("dpo", preferences(train, rng), preferences(held_out, rng)),
            ("reason", reasoning(train), reasoning(held_out)),
            ("rl", prompts(train), prompts(held_out))):
        asked = questions(write(f"{name}.jsonl", of_train, rng))
        assert not asked & questions(write(f"{name}_heldout.jsonl", of_held_out, rng)), name
    write("lora_identity.jsonl", identity_chats("Piccolo", "小笛", 6, rng), rng)


if __name__ == "__main__":
    main()
