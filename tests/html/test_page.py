"""The page in a real Chromium: what it shows, what it loads, and what keys and the address do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from qmp_client.matrix.result import Result
from qmp_client.page import of_result, render
from qmp_client.reconcile.verdict import Verdict
from tests.html.conftest import Page
from tests.html.grids import POLICY, cell, failed, large, line, result, small

NewPage: TypeAlias = Callable[..., Page]
SHIFT, CTRL = 8, 2
HERE, THERE = "tbody tr:nth-child(1) td", "tbody tr:nth-child(2) td"
FOCUSED = "document.activeElement.getAttribute('aria-label')"
HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\">&amp;<b>\u2028"


@pytest.fixture
def show(new_page: NewPage, tmp_path: Path) -> Callable[..., Page]:
    """Draw results and open the page."""

    def shown(results: list[Result], fragment: str = "", **window: int | bool) -> Page:
        path = tmp_path / "report.html"
        path.write_text(render([of_result(each) for each in results], POLICY), encoding="utf-8")
        page = new_page(**window)
        page.open(path, fragment)
        return page

    return shown


def test_the_page_loads_nothing_and_complains_about_nothing(show: Callable[..., Page], tmp_path: Path) -> None:
    page = show(small())
    page.click(f".heatmap {HERE}")
    page.until("document.querySelector('.bits')")
    assert page.requests() == [(tmp_path / "report.html").as_uri()]
    assert page.complaints() == []


def test_the_page_s_own_policy_forbids_the_network_and_foreign_scripts(show: Callable[..., Page]) -> None:
    page = show(small())
    broken = "new Promise(told => addEventListener('securitypolicyviolation', e => told(e.effectiveDirective)))"
    assert page.run(f"(p => (new Image().src = 'https://tdx.invalid/x.png', p))({broken})") == "img-src"
    inline = "document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))"
    assert page.run(f"(p => ({inline}, p))({broken})") == "script-src-elem"


def test_the_grid_counts_what_fails(show: Callable[..., Page]) -> None:
    results = large(models=6)
    page = show(results)
    counts = {
        str(found.cell.cpu): [
            sum(POLICY.fails(each) for each in other.report.lines)
            for other in results
            if other.cell.cpu == found.cell.cpu and other.report
        ]
        for found in results
    }
    drawn = page.run(
        "Object.fromEntries([...document.querySelectorAll('.heatmap tbody tr')].map(row => [row.cells[0].innerText,"
        " [...row.querySelectorAll('.count')].map(count => Number(count.innerText))]))"
    )
    assert drawn == counts
    assert page.run("[...document.querySelectorAll('.heatmap thead tr')].map(row => row.cells.length)") == [3, 11, 21]


def test_five_hundred_cells_are_drawn_without_their_bits(show: Callable[..., Page]) -> None:
    page = show(large())
    assert page.count(".heatmap td.heat") == 500
    assert page.count("*") < 10_000
    assert page.count(".bits") == 0
    assert page.complaints() == []


def test_a_cell_without_a_td_says_why(show: Callable[..., Page]) -> None:
    page = show(small())
    assert page.count(".heatmap td.failed") == 1
    assert page.count(".heatmap td.absent") == 1
    assert "QEMU exited with status 1" in page.text(".failures")
    page.point(".heatmap td.failed")
    assert "QEMU exited with status 1" in page.text("#tip")
    page.click(".heatmap td.failed")
    assert "exit status 4" in page.text("#cell")
    assert "QEMU exited with status 1" in page.text("#cell")


def test_the_keyboard_reaches_every_bit_and_its_cause(show: Callable[..., Page]) -> None:
    page = show(small())
    page.run("document.querySelector('.heatmap [tabindex=\"0\"]').focus()")
    assert page.run(FOCUSED) == "host · emerald-rapids: 3 failing lines"
    page.press("ArrowDown")
    assert page.run(FOCUSED) == "EPYC · emerald-rapids: 1 failing line"
    page.press("ArrowRight")
    assert "failed" in page.run(FOCUSED)
    page.press("ArrowLeft")
    page.press("ArrowUp")
    page.press("Enter")
    assert page.count(".bits [tabindex='0']") == 1

    page.run("document.querySelector('.bits [tabindex=\"0\"]').focus()")
    assert page.run(FOCUSED).startswith("0x0.eax[31:0] max_std_leaf: altered")
    assert "fixed-1" in page.text("#tip")
    page.press("ArrowDown")
    assert page.run(FOCUSED).startswith("0x1.ecx[26] xsave")
    assert "KVM's own emulation relies on this bit" in page.text("#tip")
    page.press("ArrowRight")
    assert page.run(FOCUSED).startswith("0x1.ecx[2] dtes64")
    page.press("ArrowDown")
    assert page.run(FOCUSED).startswith("0x7.0.ebx[11] rtm"), "the bit nearest to column 2"
    page.press("Home")
    assert page.run(FOCUSED).startswith("0x7.0.ebx[16] avx512f: forced-off, cause xfam[5], asked 1, chosen 1, got 0")
    assert "xfam[5]" in page.text("#tip")
    assert page.run("document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert page.run("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    assert page.count(".bits [tabindex='0']") == 1
    page.press("Escape")
    assert page.run("document.getElementById('tip').hidden")
    page.press("Home", modifiers=CTRL)
    assert page.run(FOCUSED).startswith("0x0.eax[31:0]")
    page.press("n")
    assert page.run(FOCUSED).startswith("0x7.0.ebx[16]"), "the next line that fails"
    page.press("p")
    assert page.run(FOCUSED).startswith("0x0.eax[31:0]")


def test_n_and_p_reach_the_map_from_anywhere_but_a_field(show: Callable[..., Page]) -> None:
    page = show(small())
    page.run("document.querySelector('td.heat').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.tagName") == "H2", "an opened cell's name has the focus"
    page.press("n")
    assert page.run(FOCUSED).startswith("0x0.eax[31:0]"), "the first line that fails"
    page.run("document.querySelector('#back').focus()")
    page.press("n")
    assert page.run(FOCUSED).startswith("0x0.eax[31:0]"), "where the map was left"
    page.run("document.querySelector('#name').focus()")
    page.press("n")
    assert page.run("document.querySelector('#name').value") == "n"


def test_the_map_is_an_aria_grid(show: Callable[..., Page]) -> None:
    page = show(small(), "cell=0")
    assert page.run("document.querySelector('.bits').getAttribute('role')") == "grid"
    assert page.count(".bits tbody [role=row] > [role=rowheader]") > 0
    assert page.count(".bits thead th.bit[role=columnheader]") == 32
    place = "(n => [n.colSpan, n.getAttribute('aria-colindex')])(document.querySelector('.bits .v-altered'))"
    assert page.run(place) == [32, "3"]
    index = "document.querySelector('[aria-label*=avx512f]').getAttribute('aria-colindex')"
    assert page.run(index) == str(3 + 31 - 16)
    assert page.run("new Set([...document.querySelectorAll('.legend .swatch')].map(s => s.innerText)).size") == len(
        Verdict
    ), "each verdict has a sign of its own, besides its colour"


def test_the_mouse_shows_what_the_focus_shows(show: Callable[..., Page]) -> None:
    page = show(small(), "cell=0")
    page.point(".bits [aria-label*=rtm]")
    assert "qemu-dropped" in page.text("#tip")
    page.point("h1")
    page.until("document.getElementById('tip').hidden")


def test_filters_fade_the_rest_and_live_in_the_address(show: Callable[..., Page]) -> None:
    page = show(small(), "cell=0")
    assert page.count(".bits .f") == 5
    page.click(".legend button:nth-child(3)")
    assert page.count(".bits .faded") == 3
    assert "verdict=forced-off" in page.run("location.hash")
    page.run("(s => (s.value = 'xfam[5]', s.dispatchEvent(new Event('change'))))(document.getElementById('cause'))")
    assert page.count(".bits .f:not(.faded)") == 1
    assert "avx512f" in page.text(".list")
    assert "rtm" not in page.text(".list")
    page.click("#clear")
    assert page.count(".bits .faded") == 0
    page.run("document.getElementById('name').focus()")
    page.type("RTM")
    assert page.count(".bits .f:not(.faded)") == 1
    assert page.text("#found") == "1 of 5 match"
    assert page.run("location.hash") == "#cell=0&name=RTM"


def test_an_address_restores_the_view(show: Callable[..., Page]) -> None:
    page = show(small(), "cell=1&with=0&verdict=honoured,forced-on&cause=native&name=s&rows=some")
    assert page.run("[...document.querySelectorAll('.legend [aria-pressed=true]')].length") == 2
    assert page.run("document.getElementById('cause').value") == "native"
    assert page.run("document.getElementById('name').value") == "s"
    assert page.run("document.getElementById('rows').checked") is True
    assert page.count(".bits.two") == 1
    page = show(small(), "cell=999&verdict=%3Cimg%3E,nonsense&cause=none")
    assert page.count(".heatmap") == 1
    assert page.complaints() == []


def test_with_a_filter_the_grid_counts_what_matches(show: Callable[..., Page]) -> None:
    counts = "[...document.querySelectorAll('.heatmap .heat .count')].map(n => n.innerText)"
    page = show(small())
    assert page.run(counts) == ["3", "1"], "failing lines"
    page = show(small(), "name=0x7.0")
    assert page.run(counts) == ["2", "1"], "deviating ones"
    page = show(small(), "verdict=honoured")
    assert page.run(counts) == ["2", "4"], "exactly what the filter says"


def test_one_bit_can_be_followed_through_the_grid(show: Callable[..., Page]) -> None:
    page = show(small(), "name=avx512f")
    assert page.count(".heatmap td.v-forced-off") == page.count(".heatmap td.v-honoured") == 1
    page = show(small(), "name=smap")
    assert page.count(".heatmap tbody td.v-honoured") == 1
    label = "document.querySelector('.heatmap tbody td').getAttribute('aria-label')"
    assert page.run(label) == "host · emerald-rapids: neither asked for nor there"


def test_back_leads_back(show: Callable[..., Page]) -> None:
    page = show(small())
    page.click(f".heatmap {THERE}")
    assert page.run("location.hash") == "#cell=1"
    page.run("history.back()")
    page.until("!document.getElementById('grid').hidden")
    page.click(f".heatmap {HERE}")
    page.click("#back")
    assert page.run(FOCUSED).startswith("host")


def test_two_cells_side_by_side(show: Callable[..., Page]) -> None:
    page = show(small())
    page.click(f".heatmap {HERE}", modifiers=SHIFT)
    assert page.count(".marked") == 1
    page.click(f".heatmap {THERE}", modifiers=SHIFT)
    assert page.run("location.hash") == "#cell=0&with=1"
    assert page.count(".bits .differs") == 5, "avx512f and rtm on both sides, smap on one"
    listed = page.text(".list")
    assert "3 fields differ" in listed
    for name in ("avx512f", "rtm", "smap", "neither asked for nor there"):
        assert name in listed
    assert "dtes64" not in listed
    page.click("#rows")
    assert page.count(".bits .f") == 5, "only rows that differ"
    page.run("document.querySelector('.bits .differs').focus()")
    assert page.run(FOCUSED).startswith("A: 0x7.0.ebx[16] avx512f: forced-off")
    assert "honoured" in page.text("#tip"), "the tip has both sides"
    page.press("End")
    assert page.run(FOCUSED).startswith("B: 0x7.0.ebx[11] rtm: forced-on"), "the keys go on to the other side"
    page.click(".list .place")
    assert "0x7.0.ebx[16]" in page.run(FOCUSED)


def test_c_on_two_cells_compares_them(show: Callable[..., Page]) -> None:
    page = show(small())
    page.run("document.querySelector('.heatmap [tabindex=\"0\"]').focus()")
    page.press("c")
    page.press("ArrowDown")
    page.press("c")
    assert page.count(".bits.two") == 1


def test_one_td_needs_no_grid(show: Callable[..., Page]) -> None:
    page = show(small()[:1])
    assert page.run("document.getElementById('grid').hidden") is True
    assert page.count(".bits .f") == 5
    assert page.count("#back") == 0
    assert page.count("#with") == 0


def test_a_vcpu_that_differs_is_told_with_its_bit(show: Callable[..., Page]) -> None:
    other = line(got=1, verdict=Verdict.ALTERED, cause="vcpu-differs", vcpu=1)
    page = show([result(cell(), line(), other)])
    assert page.count(".bits .f") == 1
    page.point(".bits .f")
    assert "vCPU 1 differs: avx512f 1" in page.text("#tip")
    assert "(vCPU 1)" in page.text(".list")


@pytest.mark.parametrize("script", [True, False])
def test_hostile_text_stays_text(show: Callable[..., Page], tmp_path: Path, script: bool) -> None:
    hostile = cell(HOSTILE, platform=HOSTILE, module=HOSTILE)
    results = [
        result(hostile, line(name=HOSTILE, cause=HOSTILE), notes=[HOSTILE]),
        result(cell(HOSTILE), line(name=HOSTILE, cause=HOSTILE, got=1)),
        failed(cell("other"), HOSTILE),
    ]
    page = show(results)
    if not script:
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.open(tmp_path / "report.html", "again")
        page.call("Page.reload")
        page.until("document.querySelector('noscript table')")
        assert HOSTILE.rstrip("\u2028") in page.text("noscript table")
    else:
        assert HOSTILE.rstrip("\u2028") in page.text(".failures")
        page.click(f".heatmap {HERE}")
        page.point(".bits .f")
        for shown in ("#tip", "#cell h2", ".facts", ".list", "#cause"):
            assert "<img src=x" in page.text(shown)
        page.run("(s => (s.value = '1', s.dispatchEvent(new Event('change'))))(document.getElementById('with'))")
        assert "<img src=x" in page.text(".list")
        assert page.complaints() == []
    assert page.count("img") == page.count("main b:not(.remark b)") == 0
    assert page.run("document.title") == "TDX CPUID report"


CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const under = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const bad = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim());
    if (!own || !node.checkVisibility() || ['SCRIPT', 'OPTION', 'NOSCRIPT'].includes(node.tagName)) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(under(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read_in_both_modes(show: Callable[..., Page], dark: bool) -> None:
    every = [
        line(bit=number, name=f"bit{number}", verdict=verdict, cause="native") for number, verdict in enumerate(Verdict)
    ]
    mixed = [result(cell(f"{n}"), *(line("1", bit=bit) for bit in range(n * n))) for n in range(6)]
    page = show([result(cell("all"), *every), *mixed, failed(cell("broken"))], dark=dark)
    assert page.run(CONTRAST) == []
    page.point(".heatmap td.failed")
    assert page.run(CONTRAST) == []
    for view in ("cell=0", "cell=0&with=3"):
        page.run(f"location.hash = '{view}'")
        page.until("document.querySelector('.bits')")
        page.run("document.querySelector('.bits .f').focus()")
        assert page.run(CONTRAST) == []


def test_dark_mode_follows_the_system_and_the_button(show: Callable[..., Page]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    page = show(small(), dark=True)
    dark = page.run(background)
    assert page.run("document.getElementById('theme').getAttribute('aria-pressed')") == "true"
    page.click("#theme")
    light = page.run(background)
    assert light != dark
    assert page.run("document.getElementById('theme').getAttribute('aria-pressed')") == "false"
    page.reload_until(f"{background} === '{light}'")
    page.click("#theme")
    assert page.run(background) == dark
    assert show(small()).run(background) == light, "another reader's system"


@pytest.mark.parametrize("fragment", ["", "cell=0", "cell=0&with=1"])
def test_half_a_laptop_s_screen_is_enough(show: Callable[..., Page], fragment: str) -> None:
    page = show(small(), fragment, width=900, height=700)
    assert page.run("document.documentElement.scrollWidth") <= 900
    if fragment:
        assert page.run("(m => m.scrollWidth - m.clientWidth)(document.querySelector('.map'))") <= 0


def test_print(show: Callable[..., Page]) -> None:
    results = large(models=1)[:2]
    page = show(results, "cell=0", dark=True)
    page.click("#theme")
    page.click("#theme")
    assert page.run("document.documentElement.dataset.theme") == "dark"
    printed = page.pdf()
    assert printed.startswith(b"%PDF-")
    pages = printed.count(b"/Type /Page\n")
    assert 2 <= pages <= 20
    page.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.call("Emulation.setDeviceMetricsOverride", width=1047, height=720, deviceScaleFactor=1, mobile=False)
    for printed_on in ("body", ".bits"):
        background = f"getComputedStyle(document.querySelector('{printed_on}')).backgroundColor"
        assert page.run(background) == "rgb(255, 255, 255)"
    assert page.run("document.getElementById('theme').checkVisibility()") is False
    assert page.run("document.querySelector('.bar').checkVisibility()") is False
    assert page.run("document.querySelector('.legend').checkVisibility()") is True
    assert page.run("getComputedStyle(document.querySelector('.bits thead')).display") == "table-header-group"
    assert page.run("getComputedStyle(document.querySelector('.bits .f')).printColorAdjust") == "exact"
    assert page.run("document.documentElement.scrollWidth") <= 1047, "A4 landscape, without its margins"
