"""`pkt report` on real run folders, and its page in a real browser."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from pkt.reporting.overrides import written_out
from pkt.reporting.runs import load_runs
from run_folders import leave_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("PKT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} on PATH, and PKT_CHROMIUM is not set"
)
CSP = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
# what a test wants to know of the page as it is laid out; written into its title, which --dump-dom shows
PROBE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, wide = [...document.querySelectorAll("body *")].filter(
    e => e.getBoundingClientRect().right > root.clientWidth + 1 && !e.closest(".scroll") && !e.closest("svg"));
  document.querySelectorAll("details").forEach(e => { e.open = true; });
  const style = getComputedStyle(document.body), ink = document.querySelector("svg path[style*=currentColor]");
  document.title = JSON.stringify({
    width: root.clientWidth, scroll: root.scrollWidth, wide: wide.map(e => e.outerHTML.slice(0, 80)),
    ground: style.backgroundColor, ink: style.color, drawn: ink ? getComputedStyle(ink).stroke : null,
    headings: document.querySelectorAll("h1,h2,h3").length, tables: document.querySelectorAll("table").length,
    drawings: [...document.querySelectorAll("svg")].filter(e => e.getBoundingClientRect().height > 40).length,
    asked: performance.getEntriesByType("resource").map(e => e.name),
    scripts: document.scripts.length, images: document.images.length});
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """A page over three arms with long labels, whose models wrote markup."""
    from pkt.reporting.page.write import write_report

    root = tmp_path_factory.mktemp("page")
    for seed in (0, 1):
        leave_run(root, "sft", lift=0.6, seed=seed)
        leave_run(root, "semalign_joint_with_a_name_that_does_not_end", lift=0.7, seed=seed)
        leave_run(root, "weak", lift=0.05, seed=seed)
    _, files = write_report([root / "runs"], out=root / "report", pairs=True)
    return files[0]


def browse(
    page: Path, tmp_path: Path, *flags: str, size: str = "1200,900"
) -> subprocess.CompletedProcess[str]:
    """Open a page without a display; --headless=new lays out as a window of that size does."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={size}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def probed(page: Path, tmp_path: Path, width: int, *flags: str) -> dict:
    """Return what `PROBE` found in a copy of the page, shown in a frame of that width."""
    copy, frame = tmp_path / "copy.html", tmp_path / "frame.html"
    text = CSP.sub("", page.read_text(encoding="utf-8"))
    report = "parent.postMessage(document.title, '*');\n});\n</script>"
    copy.write_text(
        text.replace("</body>", PROBE.replace("});\n</script>", report) + "</body>"), encoding="utf-8"
    )
    # a window cannot be as narrow as a phone; a frame can
    frame.write_text(
        f'<iframe src="copy.html" style="width:{width}px;height:800px;border:0"></iframe>'
        "<pre></pre><script>addEventListener('message', "
        "e => { document.querySelector('pre').textContent = e.data; });</script>",
        encoding="utf-8",
    )
    dom = browse(frame, tmp_path, "--dump-dom", "--virtual-time-budget=5000", *flags).stdout
    found = re.search(r"<pre>(\{.*\})</pre>", dom)
    assert found, dom[-500:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_adapts_to_dark(page, tmp_path, scheme):
    dark = scheme == "dark"
    found = probed(page, tmp_path, 360, f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    assert found["width"] == 360
    assert found["scroll"] <= 360, found["wide"]
    assert found["wide"] == []
    assert found["headings"] >= 10
    assert found["tables"] >= 6
    assert found["drawings"] >= 5
    assert (found["scripts"], found["images"], found["asked"]) == (2, 0, [])  # its own script, and the probe
    light = [sum(map(int, re.findall(r"\d+", found[name])[:3])) > 380 for name in ("ground", "ink", "drawn")]
    assert light == ([False, True, True] if dark else [True, False, False])


@in_a_browser
def test_the_page_has_no_errors_and_asks_for_nothing(page, tmp_path):
    log = tmp_path / "net.json"
    done = browse(page, tmp_path, "--dump-dom", "--enable-logging=stderr", "--v=0", f"--log-net-log={log}")
    assert "CONSOLE" not in done.stderr
    assert "<h1>nano on nano</h1>" in done.stdout
    assert re.findall(r"<title>(.*?)</title>", done.stdout)[0] == "nano on nano · pkt"
    assert asked(log) == set()


@in_a_browser
def test_a_click_copies_a_whole_command(page, tmp_path):
    """The page's own policy lets its script run; what a click selects is what it copies."""
    done = browse(page, tmp_path, "--dump-dom", "--virtual-time-budget=3000")
    lines = re.findall(r'<figure class="snippet">.*?</figure>', done.stdout, flags=re.DOTALL)
    assert len(lines) > 3
    assert all(line.count('<button type="button"') == 1 for line in lines)
    click = """<script>addEventListener("load", () => {
      const heard = [];
      document.querySelectorAll("details").forEach(each => { each.open = true; });
      document.querySelectorAll(".snippet button").forEach(each => {
        each.click();
        heard.push(getSelection().toString());
      });
      document.title = JSON.stringify(heard);
    });</script>"""
    text = page.read_text(encoding="utf-8")
    copy = tmp_path / "clicked.html"
    copy.write_text(CSP.sub("", text).replace("</body>", click + "</body>"), encoding="utf-8")
    dom = browse(copy, tmp_path, "--dump-dom", "--virtual-time-budget=3000").stdout
    heard = json.loads(html.unescape(re.findall(r"<title>(.*?)</title>", dom, flags=re.DOTALL)[0]))
    told = re.findall(r'class="snippet">.*?<pre tabindex="0">\n(.*?)</pre>', text, flags=re.DOTALL)
    assert heard == [html.unescape(line) for line in told]


@in_a_browser
def test_a_page_that_asks_for_something_would_be_noticed(page, tmp_path):
    loud = tmp_path / "loud.html"
    text = CSP.sub("", page.read_text(encoding="utf-8"))
    loud.write_text(text.replace("</main>", "<img src=http://127.0.0.1:9/x.png></main>"), encoding="utf-8")
    browse(loud, tmp_path, "--dump-dom", f"--log-net-log={tmp_path / 'net.json'}")
    assert asked(tmp_path / "net.json") == {"127.0.0.1:9"}


def asked(log: Path) -> set[str]:
    """Return the hosts in a browser's own log of the network, without those that it calls for itself."""
    hosts = set(re.findall(r'"url":"https?://([^/"]+)', log.read_text(encoding="utf-8")))
    return {host for host in hosts if not re.search(r"(^|\.)(google|gvt1|googleapis|gstatic)\.com$", host)}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on PATH")
def test_the_tables_compile(tmp_path):
    from pkt.reporting.page.write import write_report

    leave_run(tmp_path, r'a_b$ "q" [1] \x ~^{}#%&<>|', lift=0.6)
    leave_run(tmp_path, "[b", lift=0.7)
    write_report([tmp_path / "runs"], out=tmp_path)
    text = (
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{report}\end{document}"
    )
    (tmp_path / "paper.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_a_run_ends_with_its_page_and_runs_go_into_one(pkt, tiny_request):
    for method in ("identity", "sft"):
        assert pkt("run", f"method={method}", *tiny_request).code == 0
    pages = sorted(pkt.outputs.glob("runs/run/*/report.html"))
    assert "<h1>identity: " in pages[0].read_text(encoding="utf-8")
    runs = ",".join(str(page.parent) for page in pages)
    done = pkt("report", f"runs={runs}", "against=identity", "pairs=true", "out=away/a=b.html")
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in Path("away").iterdir()} == {
        f"a=b.{kind}" for kind in ("html", "md", "tex", "jsonl")
    }
    assert "against identity" in Path("away/a=b.md").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in Path("away/a=b.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["arm"] for line in lines} == {"teacher", "identity", "sft", "student"}


@pytest.mark.parametrize(
    "words",
    [
        ["method=sft"],
        pytest.param(
            ["method=semalign_joint", "objective=joint", "semantics=cosine"], marks=pytest.mark.slow
        ),
        pytest.param(
            [
                "method=semalign_joint",
                "+term@objective.terms.more=mean_square",
                "~objective.terms.kl",
                "mapping=monotone",
            ],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_command_with_every_setting_written_out_asks_for_the_same(pkt, tiny_request, words):
    assert pkt("run", *words, *tiny_request).code == 0
    (folder,) = pkt.outputs.glob("runs/run/*")
    line = written_out(load_runs([folder])[0])
    assert pkt(*shlex.split(line)[1:]).code == 0
    again = max(pkt.outputs.glob("runs/run/*"))
    assert all(stage["reused"] for stage in load_runs([again])[0]["stages"])
    assert html.escape(line, quote=False).replace("'", "&#39;") in (folder / "report.html").read_text("utf-8")


def test_a_report_leaves_nothing_but_itself(pkt, tmp_path):
    leave_run(tmp_path / "study", "sft", lift=0.5)
    before = {path for path in tmp_path.rglob("*") if "study" not in path.parts}
    done = pkt("report", f"runs={tmp_path / 'study' / 'runs'}")
    assert (done.code, done.err) == (0, "")
    assert {path for path in tmp_path.rglob("*") if "study" not in path.parts} == before
    assert [path.name for path in sorted((tmp_path / "study" / "runs").glob("*.*"))] == [
        "report.html",
        "report.jsonl",
        "report.md",
        "report.tex",
    ]
    refused = pkt("report", f"runs={tmp_path / 'study' / 'runs'}", "against=kd")
    assert refused.code == 2
    assert "no run to compare with is called 'kd'" in refused.err
