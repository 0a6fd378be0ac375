"""report.html: written by a run and by `mdm-dist report`, whole by itself, and true to the run's numbers."""
import html.parser
import json
import os
import re
import shutil

from program import events, main, read, run, train

VOID = {"meta", "br", "img", "hr", "input", "link", "col"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and keeps text, addresses and pictures."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses, self.ids, self.charts, self.titled = [], [], [], set(), 0, 0

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.addresses += [named[key] for key in ("src", "href") if key in named]
        if "id" in named:
            assert named["id"] not in self.ids, named["id"]
            self.ids.add(named["id"])
        self.charts += tag == "svg"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (tag, self.open[-5:], self.getpos())
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def parsed(text):
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == [], page.open
    return page


def a_run_writes_a_report_that_stands_alone(work):
    done = train(work, "told", "baseline=both", "report=true")
    assert done.returncode == 0, done.stderr
    text = read(work, "told", "report.html").decode()
    page = parsed(text)
    assert all(a.startswith(("#", "data:")) for a in page.addresses), page.addresses[:5]
    assert page.charts >= 6 and "<script src" not in text and len(text) < 5_000_000
    assert all(a[1:] in page.ids for a in page.addresses if a.startswith("#") and len(a) > 1)


def its_numbers_are_those_of_the_run(work):
    text = " ".join(parsed(read(work, "told", "report.html").decode()).text)
    summary = json.loads(read(work, "told", "summary.json"))
    assert re.search(rf"{100 * summary['final_top1']:.1f}\s?%", text), summary["final_top1"]
    for e in events(work, "told"):
        if e["event"] == "divide" and "labelled" in e:
            assert re.search(rf"\b{e['labelled']}\b", text), e


def names_that_look_like_markup_are_shown_not_obeyed(work):
    import h5py
    sly = work.file("sly.h5")
    shutil.copy(work.data, sly)
    with h5py.File(sly, "r+") as f:
        names = [f"<b onclick=x>&{i}\"'" for i in range(8)]
        del f["class_names"]
        f["class_names"] = names
    done = train(work, "sly", f"data.train={sly}", "report=true")
    assert done.returncode == 0, done.stderr
    text = read(work, "sly", "report.html").decode()
    parsed(text)
    assert "<b onclick" not in text and "&lt;b onclick" in text


def a_run_without_its_pictures_or_truth_still_has_a_report(work):
    os.rename(work.file("sly.h5"), work.file("gone.h5"))
    done = run("report", work.file("sly"))
    assert done.returncode == 0, done.stderr
    parsed(read(work, "sly", "report.html").decode())
    assert run("report", work.file("none")).returncode == 3


def runs_are_compared_side_by_side(work):
    page = work.file("both.html")
    done = run("report", work.file("told"), work.file("sly"), "--out", page)
    assert done.returncode == 0, done.stderr
    with open(page) as f:
        text = f.read()
    parsed(text)
    assert "told" in text and "sly" in text


main([a_run_writes_a_report_that_stands_alone, its_numbers_are_those_of_the_run,
      names_that_look_like_markup_are_shown_not_obeyed, a_run_without_its_pictures_or_truth_still_has_a_report,
      runs_are_compared_side_by_side])
