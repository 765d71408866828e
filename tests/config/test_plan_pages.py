"""What docs/plan.md and docs/scale.md show of `pkt plan` is what it says."""

from __future__ import annotations

import pytest

import plan_pages as pages


@pytest.mark.slow  # a process for each row
def test_the_pages_in_docs_are_what_pkt_plan_says():
    assert pages.main(["--check"]) == 0, "run: python scripts/plan_pages.py"


def test_a_page_without_its_block_is_refused_and_keeps_what_it_has(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{pages.BEGIN}\nold\n{pages.END}\nbelow\n")
    assert pages.filled(page, ["new", "lines"]) == f"above\n{pages.BEGIN}\nnew\nlines\n{pages.END}\nbelow\n"
    page.write_text(f"above\n{pages.BEGIN}\nold\n")
    with pytest.raises(ValueError, match="has no block between"):
        pages.filled(page, ["new"])
