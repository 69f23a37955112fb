"""Words that a full stop shortens, by language: such a stop ends no sentence."""

from __future__ import annotations

_OF_TITLES = {
    "en": "mr mrs ms messrs mmes dr prof rev hon st sr jr gen col maj capt cpt lt sgt cmdr adm gov sen rep "
    "pres supt fr bro mt ft",
    "de": "hr fr dr prof ing dipl mag st hl bzgl geb gest kap nr str",
    "fr": "m mm mme mmes mlle mlles dr pr me mgr st ste",
    "es": "sr sra srta sres d dña dr dra prof ing lic arq gral cnel sto sta ud uds vd vds",
    "it": "sig sigg sigra sigrina dott dr dssa prof ing avv arch geom on rag s ss mons",
    "pt": "sr sra srta srs dr dra prof profa eng exmo exma d sto sta",
    "nl": "dhr mevr mw dr drs ir ing mr prof ds st",
    "sv": "hr fr dr prof s:t",
    "da": "hr fr dr prof skt",
    "nb": "hr fr dr prof st",
    "fi": "hra rva tri prof",
    "pl": "p dr hab prof inż mgr św ks płk gen por",
    "cs": "p dr ing mgr bc prof doc sv",
    "tr": "dr prof doç av sn hz yrd öğr uzm alb",
    "ru": "гос проф акад д др им св тов ул",
    "uk": "п проф акад м вул ім св",
    "ro": "dl dna dra dr prof ing sf",
    "hu": "dr prof ifj özv id szt",
    "id": "dr drs ir hj prof sdr",
}
"""A name or a number follows, so that no sentence ends here whatever comes next."""

_BEFORE_NUMBERS = {
    "en": "no nos vol fig figs ch sec p pp",
    "de": "nr s abs art bd kap str",
    "fr": "no fig vol chap p pp art",
    "es": "art cap fig vol pág págs núm",
    "it": "art cap fig vol pag pagg n",
    "pt": "art cap fig vol pág págs n.º",
    "nl": "nr blz art",
    "sv": "nr kap kl",
    "da": "nr kap kl",
    "nb": "nr kap kl",
    "fi": "nro s klo",
    "pl": "nr str godz art",
    "cs": "č str",
    "tr": "no",
    "ru": "рис стр",
    "uk": "рис стор",
    "ro": "nr art cap fig pag",
    "id": "no hlm",
}
"""Words of their own, too ("No."): the sentence goes on where a digit follows."""

_INSIDE = {
    "en": "vs v eds approx dept univ ave blvd cf viz al e.g i.e ca jan feb mar apr jun jul aug sept oct "
    "nov dec",
    "de": "z.b d.h u.a o.ä v.a i.d.r z.t bzw ca vgl evtl ggf inkl exkl mind jan feb mär apr jun jul aug "
    "sept okt nov dez",
    "fr": "p.ex c.-à-d cf env av apr janv févr avr juil sept oct nov déc",
    "es": "p.ej aprox av avda tel máx mín ee.uu a.c d.c",
    "it": "p.es es ca tel",
    "pt": "p.ex aprox av tel séc",
    "nl": "b.v bijv d.w.z o.a m.b.t t.a.v ca",
    "sv": "t.ex bl.a d.v.s m.fl s.k ca",
    "da": "f.eks bl.a d.v.s ca",
    "nb": "f.eks bl.a d.v.s ca",
    "fi": "esim mm ks n",
    "pl": "np tzn tzw m.in ul",
    "cs": "např tzv tj mj ul cca",
    "tr": "vb bkz örn yy cad sok mah",
    "ru": "т.е т.к т.д т.п напр см руб коп тыс млн млрд",
    "uk": "т.д напр див грн тис млн млрд",
    "ro": "ex str",
    "hu": "pl kb ill stb sz",
    "id": "tgl jl",
    "fa": "ه.ش ه.ق ق.م م.ش ر.ک",
    "ar": "د أ م ص ج هـ",
}
"""The sentence goes on, as a rule."""

_RELATED = {"no": "nb", "nn": "nb", "sk": "cs", "be": "ru", "ca": "es", "gl": "pt", "az": "tr", "ms": "id"}
ORDINALS = {
    *("az", "bs", "cs", "da", "de", "et", "fi", "hr", "hu", "is", "lv", "nb", "nn", "no", "pl", "sk", "sl"),
    *("sr", "tr"),
}
"""Languages that write an ordinal as a number with a full stop."""


def abbreviations(language: str, *, before_number: bool) -> frozenset[str]:
    """In lower case, without the last full stop; ``language`` as a front end names it."""
    base = language.split("-")[0]
    base = _RELATED.get(base, base)
    tables = (_OF_TITLES, _INSIDE, _BEFORE_NUMBERS) if before_number else (_OF_TITLES, _INSIDE)
    return frozenset(word for table in tables for word in table.get(base, "").split())
