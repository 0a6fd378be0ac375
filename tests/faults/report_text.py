"""What a report says of a run, without what differs between two runs alike: times, speeds, paths, hosts, restarts and warnings."""
import os
import re

NOT_COMPARED = ("time", "settings", "warnings")  # sections whose text is of this one run
OF_THE_RUN = re.compile(r"Training report|[0-9.,]+ (images|pictures) (a|per) second|images/s|taken up again|mdm-test|[0-9.]+\s(s|min|h)\b")


def comparable_report(folder):
    """The page, element by element, without the sections of times and settings and without lines of speeds and dates."""
    with open(os.path.join(folder, "report.html"), encoding="utf-8") as f:
        page = f.read()
    page = re.sub(r"\b%s\b" % re.escape(os.path.basename(folder)), "RUN", page)
    for section in NOT_COMPARED:
        page = re.sub(r'<section[^>]*id="%s".*?</section>' % section, "", page, flags=re.DOTALL)
    return [part for part in page.replace("><", ">\n<").splitlines() if not OF_THE_RUN.search(part)]
