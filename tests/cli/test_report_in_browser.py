"""report.html in headless Chromium, opened from file://: parsed as meant, silent, and drawn in light, dark, on a phone
and on paper. Skipped where there is no Chromium."""
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

from program import main, run, train
from report_pages import palette

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def browse(work, page, *options):
    done = subprocess.run([BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                           "--hide-scrollbars", f"--user-data-dir={work.file('profile')}", *options, "file://" + page],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


def prepare(work):
    folder = work.file("seen")
    if not os.path.exists(folder + "/report.html"):
        done = train(work, "seen", "train.epochs=3", "train.warmup=1", "pretrain.epochs=1")
        assert done.returncode == 0, done.stderr
    return folder + "/report.html"


def first_pixel_and_size(path):
    """Of a PNG file as Chromium writes them: 8 bits, RGB or RGBA; the first pixel of the first line is stored plainly
    by every filter."""
    with open(path, "rb") as f:
        content = f.read()
    width, height, depth, kind = struct.unpack(">IIBB", content[16:26])
    assert depth == 8 and kind in (2, 6)
    data, at = b"", 8
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at:at + 8])
        data += content[at + 8:at + 8 + length] if name == b"IDAT" else b""
        at += 12 + length
    return tuple(zlib.decompress(data)[1:4]), (width, height)


def a_browser_sees_every_element_and_has_nothing_to_complain_of(work):
    page = prepare(work)
    with open(page, encoding="utf-8") as f:
        written = f.read()
    seen = browse(work, page, "--dump-dom")
    for tag in ("section", "svg", "figure", "table", "img", "h2", "h3", "details", "rect", "path"):
        assert len(re.findall(f"<{tag}[ >]", seen)) == len(re.findall(f"<{tag}[ >]", written)) > 0, tag
    assert re.findall(r' id="([^"]+)"', seen) == re.findall(r' id="([^"]+)"', written)


def light_and_dark_follow_the_readers_choice(work):
    page, shot = prepare(work), work.file("shot.png")
    with open(page, encoding="utf-8") as f:
        written = f.read()
    for dark, options in ((False, []), (True, ["--force-dark-mode", "--blink-settings=preferredColorScheme=0"])):
        browse(work, page, f"--screenshot={shot}", "--window-size=1280,900", *options)
        pixel, size = first_pixel_and_size(shot)
        assert size == (1280, 900) and "#%02x%02x%02x" % pixel == palette(written, dark)["bg"]


def nothing_is_wider_than_a_phone(work):
    page, narrow = prepare(work), work.file("narrow.html")
    with open(page, encoding="utf-8") as f:
        written = f.read()
    # the test's own copy may run a script, which tells the width that the page takes in a frame of 360 pixels
    inner = re.sub(r"<meta http-equiv[^>]*>", "", written)
    with open(work.file("inner.html"), "w", encoding="utf-8") as f:
        f.write(inner.replace("</body>", "<script>addEventListener('load',()=>parent.postMessage("
                              "document.documentElement.scrollWidth,'*'))</script></body>"))
    with open(narrow, "w") as f:
        f.write("<!DOCTYPE html><title>waiting</title><script>addEventListener('message',e=>document.title='width '+e.data)"
                "</script><iframe src='inner.html' style='width:360px;height:700px;border:0'></iframe>")
    seen = browse(work, narrow, "--dump-dom", "--virtual-time-budget=8000")
    assert "<title>width 360</title>" in seen, re.search("<title>.*?</title>", seen).group(0)


def it_can_be_printed(work):
    page, paper = prepare(work), work.file("paper.pdf")
    browse(work, page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    with open(paper, "rb") as f:
        content = f.read()
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert content.startswith(b"%PDF") and 2 <= pages <= 16, pages


def a_comparison_is_drawn_without_complaint(work):
    page = prepare(work)
    folder, both = os.path.dirname(page), work.file("both.html")
    assert run("report", folder, folder, "--out", both).returncode == 0
    assert browse(work, both, "--dump-dom").count("<svg") == 2


if __name__ == "__main__":
    if not BROWSER:
        print("skipped: there is no Chromium here")
        sys.exit(77)
    main([a_browser_sees_every_element_and_has_nothing_to_complain_of, light_and_dark_follow_the_readers_choice,
          nothing_is_wider_than_a_phone, it_can_be_printed, a_comparison_is_drawn_without_complaint])
