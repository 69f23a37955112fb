"""What numbers and signs are called, by language, as far as ``read_out.py`` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Words:
    """Of one language."""

    point: str
    """Between a number and its decimals."""
    minus: str
    percent: str
    ordinal: str = ""
    """A pattern of what follows a number to make an ordinal of it."""
    signs: Mapping[str, str] = field(default_factory=dict)
    money: Mapping[str, tuple[str, str, str, str]] = field(default_factory=dict)
    """By sign: one of it, several, a hundredth, several hundredths; the last two may be empty."""
    comma: bool = True
    """Whether decimals follow a comma, and points or spaces group thousands."""
    months: str = ""
    """The twelve, with spaces between"""
    date: str = ""
    """Of ``{day}``, ``{nth}`` (the ordinal), ``{month}`` and ``{year}``."""
    short: str = ""
    """``SHORT WORDS; ...``: words in full by how they are shortened, without the last full stop"""
    before_numbers: str = ""
    """As ``short``, where a number follows"""


_JALALI = "فروردین اردیبهشت خرداد تیر مرداد شهریور مهر آبان آذر دی بهمن اسفند"
LAST_JALALI_YEAR = 1700
"""Of the years that are written in Persian, those up to this one are of the Persian calendar."""

WORDS = {
    "en": Words(
        point="point",
        minus="minus",
        percent="percent",
        ordinal="st|nd|rd|th",
        signs={
            "&": "and",
            "+": "plus",
            "=": "equals",
            "@": "at",
            "#": "number",
            "°": "degrees",
            "×": "times",
        },
        money={
            "$": ("dollar", "dollars", "cent", "cents"),
            "€": ("euro", "euros", "cent", "cents"),
            "£": ("pound", "pounds", "penny", "pence"),
            "¥": ("yen", "yen", "", ""),
            "₹": ("rupee", "rupees", "paisa", "paise"),
        },
        comma=False,
        months="January February March April May June July August September October November December",
        date="{month} {nth}, {year}",
        short=(
            "mr mister; mrs missus; ms miss; dr doctor; prof professor; jr junior; sr senior; gen "
            "general; col colonel; capt captain; lt lieutenant; sgt sergeant; gov governor; sen "
            "senator; rev reverend; hon honorable; messrs messieurs; vs versus; etc et cetera; e.g for "
            "example; i.e that is; approx approximately; vol volume"
        ),
        before_numbers="no number",
    ),
    "fa": Words(
        point="ممیز",
        minus="منفی",
        percent="درصد",
        ordinal="مین|امین|اُمین|م|ام|اُم",
        signs={"&": "و", "+": "به علاوه", "=": "مساوی", "°": "درجه", "×": "ضرب در"},
        money={
            "$": ("دلار", "دلار", "سنت", "سنت"),
            "€": ("یورو", "یورو", "سنت", "سنت"),
            "£": ("پوند", "پوند", "پنی", "پنی"),
            "﷼": ("ریال", "ریال", "", ""),
        },
        comma=False,
        months="ژانویه فوریه مارس آوریل مه ژوئن ژوئیه اوت سپتامبر اکتبر نوامبر دسامبر",
        date="{nth} {month} {year}",
        short="ه.ش هجری شمسی; ه.ق هجری قمری; ق.م قبل از میلاد; ر.ک رجوع کنید",
    ),
    "de": Words(
        point="Komma",
        minus="minus",
        percent="Prozent",
        ordinal=r"\.(?=\s+\w)",
        signs={"&": "und", "+": "plus", "=": "gleich", "@": "at", "°": "Grad", "×": "mal"},
        money={
            "$": ("Dollar", "Dollar", "Cent", "Cent"),
            "€": ("Euro", "Euro", "Cent", "Cent"),
            "£": ("Pfund", "Pfund", "Penny", "Pence"),
        },
        months="Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
        date="{nth} {month} {year}",
        short=(
            "dr Doktor; prof Professor; hr Herr; fr Frau; st Sankt; ca circa; z.b zum Beispiel; d.h das "
            "heißt; u.a unter anderem; bzw beziehungsweise; usw und so weiter; vgl vergleiche; evtl "
            "eventuell; ggf gegebenenfalls"
        ),
        before_numbers="nr Nummer",
    ),
    "fr": Words(
        point="virgule",
        minus="moins",
        percent="pour cent",
        ordinal="er|re|ère|e|ème",
        signs={"&": "et", "+": "plus", "=": "égale", "°": "degrés", "×": "fois"},
        money={
            "€": ("euro", "euros", "centime", "centimes"),
            "$": ("dollar", "dollars", "cent", "cents"),
            "£": ("livre", "livres", "penny", "pence"),
        },
        months="janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
        date="{day} {month} {year}",
        short="m monsieur; mm messieurs; etc et cetera; p.ex par exemple",
        before_numbers="no numéro",
    ),
    "es": Words(
        point="coma",
        minus="menos",
        percent="por ciento",
        ordinal="[ºª]",
        signs={"&": "y", "+": "más", "=": "igual a", "°": "grados", "×": "por"},
        money={
            "€": ("euro", "euros", "céntimo", "céntimos"),
            "$": ("dólar", "dólares", "centavo", "centavos"),
            "£": ("libra", "libras", "penique", "peniques"),
        },
        months="enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
        date="{day} de {month} de {year}",
        short=(
            "sr señor; sra señora; srta señorita; dr doctor; dra doctora; ud usted; uds ustedes; etc "
            "etcétera; p.ej por ejemplo"
        ),
        before_numbers="núm número",
    ),
    "it": Words(
        point="virgola",
        minus="meno",
        percent="per cento",
        ordinal="[ºª]",
        signs={"&": "e", "+": "più", "=": "uguale", "°": "gradi", "×": "per"},
        money={
            "€": ("euro", "euro", "centesimo", "centesimi"),
            "$": ("dollaro", "dollari", "centesimo", "centesimi"),
        },
        months=(
            "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre"
        ),
        date="{day} {month} {year}",
        short="sig signor; dott dottor; prof professor; ecc eccetera",
    ),
    "pt": Words(
        point="vírgula",
        minus="menos",
        percent="por cento",
        ordinal="[ºª]",
        signs={"&": "e", "+": "mais", "=": "igual a", "°": "graus", "×": "vezes"},
        money={
            "€": ("euro", "euros", "cêntimo", "cêntimos"),
            "$": ("dólar", "dólares", "centavo", "centavos"),
        },
        months="janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
        date="{day} de {month} de {year}",
        short="sr senhor; sra senhora; dr doutor; dra doutora; etc et cetera",
    ),
    "nl": Words(
        point="komma",
        minus="min",
        percent="procent",
        ordinal="ste|de|e",
        signs={"&": "en", "+": "plus", "=": "is", "°": "graden", "×": "keer"},
        money={"€": ("euro", "euro", "cent", "cent"), "$": ("dollar", "dollar", "cent", "cent")},
        months="januari februari maart april mei juni juli augustus september oktober november december",
        date="{day} {month} {year}",
        short="dhr de heer; mevr mevrouw; dr dokter; bijv bijvoorbeeld",
        before_numbers="nr nummer",
    ),
    "tr": Words(
        point="virgül",
        minus="eksi",
        percent="yüzde",
        signs={"&": "ve", "+": "artı", "=": "eşittir", "°": "derece", "×": "çarpı"},
        money={"₺": ("lira", "lira", "kuruş", "kuruş"), "$": ("dolar", "dolar", "sent", "sent")},
        months="Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
        date="{day} {month} {year}",
        short="dr doktor; prof profesör; vb ve benzeri; bkz bakınız",
        before_numbers="no numara",
    ),
}
"""By language; of others only whole numbers are read."""


def month_name(language: str, year: int, month: int) -> str:
    """Of the calendar that a year is of; ``month`` counts from 1."""
    persian = language == "fa" and year <= LAST_JALALI_YEAR
    return (_JALALI if persian else WORDS[language].months).split()[month - 1]


def in_full(listed: str) -> dict[str, str]:
    """A table of :class:`Words`' ``short`` or ``before_numbers``."""
    pairs = (entry.strip().partition(" ") for entry in listed.split(";") if entry.strip())
    return {short: words for short, _, words in pairs}
