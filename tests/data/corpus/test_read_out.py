"""Numbers, dates, money, signs and abbreviations, in words of the language."""

from __future__ import annotations

import pytest

from ttsfast.data.corpus.read_out import read_out

pytest.importorskip("num2words", reason="num2words is not installed")


def nothing(_token: str) -> bool:
    return False


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "2 of 1,234 apples", "two of one thousand two hundred and thirty-four apples"),
        ("en", "$3.50, $1 and €5", "three dollars fifty cents, one dollar and five euros"),
        ("en", "step ① of Louis Ⅳ", "step one of Louis four"),
        ("en", "£2.01", "two pounds one penny"),
        ("en", "on the 21st, -5 or 3.14", "on the twenty-first, minus five or three point one four"),
        ("en", "2024-05-03 at 5:30", "May third, twenty twenty-four at five thirty"),
        ("en", "5/3/2024, 17:00", "May third, twenty twenty-four, seventeen o'clock"),
        ("en-gb", "5/3/2024", "March fifth, twenty twenty-four"),
        ("en", "in 1999, 12% & 10 °C", "in nineteen ninety-nine, twelve percent and ten degrees C"),
        ("en", "mp3, v1.2.3, 007", "mp three, v one point two point three, zero zero seven"),
        ("en", "Dr. No, No. 5, etc.", "doctor No, number five, et cetera."),
        ("en", "Mr. and MRS. Hill, e.g. here", "mister and missus Hill, for example here"),
        ("en", "5-7 and 99:99", "five-seven and ninety-nine:ninety-nine"),
        ("fa", "۱۲۳٫۵ و ۱٬۲۳۴", "صد و بیست و سه ممیز پنج و هزار و دویست و سی و چهار"),
        ("fa", "۳/۵ یا ٣.٥ یا 1,234", "سه ممیز پنج یا سه ممیز پنج یا هزار و دویست و سی و چهار"),
        ("fa", "۵۰٪ و $۳ و ۲۱مین روز ۳م", "پنجاه درصد و سه دلار و بیست و یکمین روز سوم"),
        ("fa", "۱۴۰۲/۰۵/۱۲ ساعت ۵:۳۰", "دوازدهم مرداد هزار و چهارصد و دو ساعت پنج و سی دقیقه"),
        ("fa", "۲۰۲۴/۰۵/۰۳", "سوم مه دو هزار و بیست و چهار"),
        ("fa", "۱۳۵۷ ه.ش. بود", "هزار و سیصد و پنجاه و هفت هجری شمسی بود"),
        (
            "de",
            "3,50 € oder 1.234,5",
            "drei Euro fünfzig Cent oder eintausendzweihundertvierunddreißig Komma fünf",
        ),
        ("de", "Der 3. Mai, z.B. 5%", "Der dritte Mai, zum Beispiel fünf Prozent"),
        ("fr", "Le 1er mai à 17:30", "Le premier mai à dix-sept heures trente"),
        ("es", "3/5/2024, 5%", "tres de mayo de dos mil veinticuatro, cinco por ciento"),
        ("tr", "%50 ve 3,5", "yüzde elli ve üç virgül beş"),
        # Of a language without a table, whole numbers alone; and of one that num2words lacks, none.
        ("ru", "25 книг, 3,5", "двадцать пять книг, 3,5"),
        ("hi", "25", "25"),
        ("en", "nothing to read.", "nothing to read."),
    ],
)
def test_what_is_not_written_in_letters_is_read(language: str, text: str, words: str) -> None:
    assert read_out(text, language, nothing) == words


def test_what_a_voice_has_symbols_for_stays() -> None:
    assert read_out("5 & 7%", "en", str.isdecimal) == "5 and seven percent"
