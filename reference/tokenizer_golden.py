"""Writes reference token ids, computed by a reimplementation of CLIP's tokenizer with the packages that it uses.

Packages   Python 3.11, ftfy 6.3.1, regex 2026.11.15
Set up     python3 -m venv venv && venv/bin/pip install ftfy==6.3.1 regex
Golden     tokenizer_generated.json and tokenizer_phrases.json in crates/zeg-vocab/tests/golden; their entry "about" is
           the command that made them
Fuzzing    write the output for another --count and --seed to a file, set ZEG_TOKENIZER_CASES to its path, then run
           cargo test -p zeg-vocab --test tokenizer -- --ignored

Writes {"about", "vectors": [{"text", "clean", "encode"}], "known_differences": [the same]} to standard output. The texts
are generated: pieces of many scripts, markup, contractions, control characters and special tokens are joined at random,
and some of them are turned into mojibake. With --phrases they are everyday phrases in many languages, each also as every
common kind of mojibake. All mojibake is produced by codecs, so each text is one that broken software could have written.

--differing lists the cases, counted from 0, on which zeg is known to differ; they go to the second list.
"""

import argparse
import gzip
import html
import json
import random
import sys
import unicodedata
from pathlib import Path

import ftfy
import regex

MERGES = Path(__file__).parent.parent / "crates/zeg-vocab/assets/clip_merges.txt.gz"
SPECIAL = {"<|startoftext|>": 49406, "<|endoftext|>": 49407}
PIECES = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def byte_symbols():
    """Returns a table from each byte to the character that represents it, in the order of the vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {byte: chr(byte) for byte in shown}
    table.update({byte: chr(256 + place) for place, byte in enumerate(hidden)})
    return table


class Reference:
    def __init__(self):
        lines = gzip.open(MERGES, "rt", encoding="utf-8").read().splitlines()
        pairs = [tuple(line.split(" ")) for line in lines]
        self.symbols = byte_symbols()
        base = list(self.symbols.values())
        words = base + [symbol + "</w>" for symbol in base] + ["".join(pair) for pair in pairs]
        self.ids = {word: place for place, word in enumerate(words)}
        self.ranks = {pair: place for place, pair in enumerate(pairs)}

    @staticmethod
    def clean(text):
        text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
        return regex.sub(r"\s+", " ", text).strip().lower()

    def word(self, piece):
        """Returns the token ids of one piece."""
        if piece in SPECIAL:
            return [SPECIAL[piece]]
        parts = [self.symbols[byte] for byte in piece.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda pair: self.ranks.get(pair, 1e9))
            if best not in self.ranks:
                break
            joined, place = [], 0
            while place < len(parts):
                if tuple(parts[place : place + 2]) == best:
                    joined.append("".join(best))
                    place += 2
                else:
                    joined.append(parts[place])
                    place += 1
            parts = joined
        return [self.ids[part] for part in parts]

    def encode(self, text):
        return [token for piece in PIECES.findall(self.clean(text)) for token in self.word(piece)]


WORDS = """a photo of the cat diningtable wall-concrete C++ it's we've I'll don't they're I'd I'm 'S NAÏVE café résumé
Ångström über straße STRASSE İstanbul ıstanbul ſtop ﬁne ﬂuid oﬃce ĳs ŉ ǆ œuvre Œuvre schön façade señor São àquele às à
Čeština Łódź žluťoučký kůň şişe ğ Ő ű Ελληνικά Σίσυφος ΟΔΟΣ Кириллица привет мир Ґанок עברית العربية हिन्दी ไทย 你好世界
日本語テキスト ﾃｷｽﾄ ｶﾞ ﾊﾟ ｆｕｌｌ Ｗｉｄｔｈ ￥１００ ￣ 한국어 ﾡ 1,000.5 3½ x²+y³ ٣٤ Ⅷ ① 100€ £5 ¥7 20°C ±3 «quote» “curly” ‘single’ ’re ‚low‛ „low‟ – — … • ™ ® ©
§5 ¶ 🙂 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ✔ e\u0301 o\u0308 n\u0303 \u1e9b\u0323 \u0344 \u0345 \u212b \u2126 K ² ª º µ
<b>bold</b> <|startoftext|> <|ENDOFTEXT|> <|endoftext|>x &amp; &amp;amp; &amp;amp;amp; &lt;i&gt; &copy &notit; &EACUTE; &eacute; &nbsp; &#233;
&#xE9; &#x1F600; &#128; &#0; &#xD800; &#65 &#59; &#x3b; &#38;lt; &#13; &#8232; &frac12; &NTILDE; &bogus; & && &; &# ? � a�b ̈
www.example.com/a?b=c&d=e#f user@example.com #tag @name 50% ~`^* a_b-c/d\\e|f {x} [y] (z) ... !!! ¿qué? ¡hola! ┌─┐ █▓ √ ≈ ∂ ◊ ƒ ˆ ˜ ¯ ¬ ¦ ¤
àáâãäåæçèéêëìíîïðñòóôõöøùúûüýþÿ ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖØÙÚÛÜÝÞ × ÷ ß""".split()
CONTROLS = [chr(code) for code in [*range(0, 32), 127, *range(128, 160), 0xA0, 0xAD, 0x200B, 0x200C, 0x200D, 0x200E]]
CONTROLS += list("\u2028\u2029\u202e\u2060\u206a\ufeff\ufffc\ufffd\ufe0f\u3000\u1680\u2003\u180e\r\n\t")
CONTROLS += ["\r\n", "\x1b[31m", "\x1b[0m", "\x1b[1;32;40m", "\x1b[K", "\x1b[", "\x1b]", "<", "Ã ", "Â ", "â€œ", "â€™", "â€\x9d", "â€�"]
CODECS = ["latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257", "iso-8859-2", "mac_roman", "cp437"]
CODECS += ["sloppy-windows-1252"] * 4


def mojibake(text, random):
    """Returns text as shown by software that decodes UTF-8 as a single-byte encoding and may damage it further."""
    codec = random.choice(CODECS)
    data = text.encode("utf-8")
    if random.random() < 0.1:  # CESU-8 and Java's U+0000
        utf16 = text.encode("utf-16-be")
        units = [chr(int.from_bytes(utf16[i : i + 2], "big")) for i in range(0, len(utf16), 2)]
        data = "".join(units).encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")
    text = data.decode(codec, random.choice(["replace", "ignore"]))
    damage = random.random()
    if damage < 0.15:
        text = text.replace("\xa0", " ")
    elif damage < 0.2:
        text = text.replace("\ufffd", "?")
    elif damage < 0.25:
        text = html.escape(text)
    elif damage < 0.3:
        text = text.encode("ascii", "xmlcharrefreplace").decode("ascii")
    return text


def generate(random):
    """Returns one random text."""
    words = []
    for _ in range(random.choice([1, 1, 2, 3, 4, 6, 9])):
        kind = random.random()
        if kind < 0.72:
            word = random.choice(WORDS)
        elif kind < 0.85:
            word = random.choice(CONTROLS)
        elif kind < 0.93:
            start, end = random.choice([(32, 127), (160, 384), (0x370, 0x530), (0x2000, 0x2100), (0x20, 0x3000), (0xFF00, 0xFFF0)])
            word = "".join(chr(random.randrange(start, end)) for _ in range(random.randint(1, 6)))
        else:
            word = random.choice(WORDS).upper()
        if random.random() < 0.12:
            word = mojibake(word, random)
        words.append(word)
    text = random.choice([" ", " ", " ", "", "\n", "  "]).join(words)
    for _ in range(random.choice([0, 0, 0, 1, 1, 2])):
        text = mojibake(text, random)
    return "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)


PHRASES = """the café on the corner|a naïve façade – très chic|“curly quotes” and ‘single’ ones|it’s a dog’s life…|100 € or £5
© 2024 Müller® GmbH™|20 °C ± 3|Größe, Straße und Äpfel|Übergrößenträger|ein weißes Häuschen|l’été à la plage|où est le garçon ?
Ça coûte très cher|un œuf et un cœur|voilà le travail|El niño comió una piña|¿Qué tal? ¡Muy bien!|São Paulo é às vezes fria
não há avião|perché la città è più bella|Ångström på øya|smörgåsbord och köttbullar|hæð og þoka|žluťoučký kůň|dvě kočky
zażółć gęślą jaźń|Łódź i Kraków|árvíztűrő tükörfúrógép|őszi|İstanbul'da güneşli bir gün|öğrenci şişe|știință și tehnică
šuo ir katė|zaļš koks|một con chó và một con mèo|собака и кошка|зелёное дерево|ночь – это тьма|їжак і ґедзь|зелено дърво
Ελληνικά γράμματα|ένας σκύλος|עץ ירוק|كلب وقطة|कुत्ता और बिल्ली|สุนัขและแมว|一只狗和一只猫|犬と猫|「こんにちは」|개와 고양이
a smiling face 🙂|❤️ love|👨‍👩‍👧 family|✔ done|🇩🇪 flag|→ arrow ←|★★★☆☆|ქართული ენა|հայերեն|தமிழ்""".replace("\n", "|").split("|")
COMMON_CODECS = ["latin-1", "sloppy-windows-1252", "sloppy-windows-1251", "cp437", "mac_roman"]


def phrases():
    """Yields every phrase unchanged and as every common kind of mojibake."""
    for phrase in PHRASES:
        yield phrase
        for codec in COMMON_CODECS:
            yield phrase.encode("utf-8").decode(codec)


def fuzz(count, seed, reference):
    """Yields generated texts of at most 200 characters."""
    source = random.Random(seed)
    while count > 0:
        text = generate(source)
        # Unassigned characters (Cn) may already be letters in the Unicode tables of one package but not of another.
        assigned = all(unicodedata.category(c) != "Cn" for c in text + reference.clean(text))
        if len(text) <= 200 and assigned:
            yield text
            count -= 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--phrases", action="store_true")
    parser.add_argument("--differing", default="", metavar="0,1,…")
    options = parser.parse_args()
    reference = Reference()
    texts = phrases() if options.phrases else fuzz(options.count, options.seed, reference)
    differing = {int(place) for place in options.differing.split(",") if place}
    lists = {"vectors": [], "known_differences": []}
    for place, text in enumerate(texts):
        case = {"text": text, "clean": reference.clean(text), "encode": reference.encode(text)}
        lists["known_differences" if place in differing else "vectors"].append(case)
    about = "made with: python reference/tokenizer_golden.py " + " ".join(sys.argv[1:])
    print(json.dumps({"about": about, **lists}, separators=(",", ":")).replace('},{"text"', '},\n{"text"'))


if __name__ == "__main__":
    main()
