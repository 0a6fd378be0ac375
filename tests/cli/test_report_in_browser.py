"""report.html in headless Chromium, opened from file://; skipped where there is no Chromium."""
import shutil
import subprocess
import sys

from program import main, train

BROWSER = shutil.which("chromium")


def a_browser_draws_it_without_complaint(work):
    assert train(work, "seen", "report=true").returncode == 0
    done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
                           "file://" + work.file("seen") + "/report.html"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "</svg>" in done.stdout, done.stderr[-500:]
    assert "CONSOLE" not in done.stderr, done.stderr[-500:]


if not BROWSER:
    print("no chromium here")
    sys.exit(77)
main([a_browser_draws_it_without_complaint])
