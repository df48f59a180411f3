"""Class names in any script: what Matplotlib's own font lacks is drawn with installed fonts, or as its code point."""

import functools

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FaceFlags, FT2Font
from matplotlib.text import Text

from stages.plots._style import short

OWN = "DejaVu Sans"  # comes with Matplotlib
PLAIN = ("Regular", "Book", "Normal", "Roman")
UNUSABLE = FaceFlags.COLOR | FaceFlags.SVG | FaceFlags.SBIX  # Matplotlib draws nothing of colored emoji


def choose(figure: Figure) -> frozenset[str]:
    """Let a figure use the installed fonts that its texts need. Returns the characters that no font has."""
    texts = figure.findobj(Text)
    own = FT2Font(font_manager.findfont(OWN))
    characters = {each for text in texts for each in text.get_text() if each.isprintable()}  # no joiners
    missing = frozenset(each for each in characters if not own.get_char_index(ord(each)))
    if not missing:
        return missing
    found, lacking = families(missing)
    for text in texts:
        text.set_fontfamily([OWN, *found])
    return lacking


def spell_out(figure: Figure, lacking: frozenset[str]) -> None:
    """Replace characters in the texts of a figure by their code points, such as U+732B."""
    codes = str.maketrans({character: f"U+{ord(character):04X} " for character in lacking})

    def spelled(text: str) -> str:
        return "\n".join(short(line.translate(codes).strip()) for line in text.split("\n"))

    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if lacking & set("".join(labels)):
            axis.set_ticks(axis.get_majorticklocs(), [spelled(label) for label in labels])
    for text in figure.findobj(Text):
        if lacking & set(text.get_text()):
            text.set_text(spelled(text.get_text()))


def installed() -> list[str]:
    """The files of all fonts of the system."""
    return sorted(font_manager.findSystemFonts())


@functools.cache
def families(missing: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """As few fonts as have these characters, and the characters that none has."""
    fonts = []
    for path in installed():
        try:
            font = FT2Font(path)
        except (OSError, RuntimeError):  # it is broken, or was removed just now
            continue
        has = {each for each in missing if font.get_char_index(ord(each))}
        if has and font.face_flags & FaceFlags.SCALABLE and not font.face_flags & UNUSABLE:
            fonts.append((font.style_name not in PLAIN, path, font.family_name, has))
    fonts.sort(key=lambda font: font[:2])
    families, lacking = [], set(missing)
    while fonts and (found := max(fonts, key=lambda font: len(font[3] & lacking)))[3] & lacking:
        _, path, family, has = found
        font_manager.fontManager.addfont(path)
        families.append(family)
        lacking -= has
    return families, frozenset(lacking)
