"""What a header says of the instrument, where it is damaged."""

from __future__ import annotations

import numpy as np
import pytest

from csist.checks import InputError
from csist.io.headers import Header, header_of_cards


def test_damaged_sky_coordinates_are_refused_in_one_line() -> None:
    pytest.importorskip("astropy", reason="needs the extra `astro`")
    cards = (("CTYPE1", "RA---TAN"), ("CTYPE2", "DEC--TAN"), ("CUNIT1", "parsnip"))
    with pytest.raises(InputError, match=r"its sky coordinates \(WCS\) cannot be used: [^\n]+$"):
        Header(cards=cards).wcs()


def test_keywords_that_no_header_can_have_are_left_out() -> None:
    cards = {"CTYPE1": "RA---TAN", "CRV\x7f?\x7f\x7f": 3.0, "": 1, "COMMENT": "c", "CRVAL1": 10.0}
    header = header_of_cards(cards, {}, np.zeros((5, 5)), [])
    assert header.cards == (("CTYPE1", "RA---TAN"), ("CRVAL1", 10.0))
