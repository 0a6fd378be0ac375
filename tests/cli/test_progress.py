"""What a run shows while it goes on: a line that is rewritten on a terminal, a line every 30 seconds elsewhere."""
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from program import PROGRAM, SMALL, SOURCE, main, train

LINE = (r"(pretrain|warmup|semi|baseline_ce) epoch (\d+)/(\d+)(?:, network ([ab]))?: step (\d+)/(\d+), loss (-?[\d.]+), "
        r"(\d+) images/s, left: stage ([^,]+), run ([^;]+); (\d+)% waiting for data")


def seconds(text):
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    return sum(int(n) * units[u] for n, u in re.findall(r"(\d+) (d|h|min|s)", text))


def on_a_terminal(work, name, columns, **environment):
    terminal, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([PROGRAM, "train", os.path.join(SOURCE, "configs", "quickstart.yaml"),
                                f"data.train={work.data}", f"run={work.file(name)}", *SMALL, "baseline=ce"],
                               stdout=subprocess.DEVNULL, stderr=other,
                               env=dict(os.environ, TERM="xterm", LC_ALL="C.UTF-8", **environment))
    os.close(other)
    text = b""
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        text += data
    os.close(terminal)
    assert process.wait() == 0, text[-500:]
    return text.decode()


def a_terminal_shows_loss_speed_time_left_and_waiting(work):
    text = on_a_terminal(work, "wide", 200, NO_COLOR="")
    shown = re.findall(r"\r\x1b\[36m(\u2501*)(?:\x1b\[2m(\u2500*))?\x1b\[0m " + LINE + r"\x1b\[K", text)
    stages = [s[2] for s in shown]
    assert set(stages) == {"pretrain", "warmup", "semi", "baseline_ce"} and len(shown) > 30
    for bar, rest, stage, epoch, epochs, network, step, steps, loss, speed, of_stage, of_run, waiting in shown:
        assert len(bar) + len(rest) == 16 and int(epoch) <= int(epochs) and int(step) <= int(steps)
        assert (network == "") == (stage == "baseline_ce")
        assert int(speed) > 0 and 0 <= int(waiting) <= 100
        assert seconds(of_stage) <= seconds(of_run) + 1 and seconds(of_run) < 600
    last = {s[2]: s for s in shown}
    for stage in last.values():  # each stage ends with a full bar and nothing left of it
        assert len(stage[0]) == 16 and seconds(stage[10]) == 0
    assert seconds(last["baseline_ce"][11]) == 0 and seconds(last["pretrain"][11]) >= 0
    assert text.count("test accuracy") >= 4


def no_color_and_narrow_terminals_are_respected(work):
    text = on_a_terminal(work, "narrow", 60, NO_COLOR="1")
    assert not re.search(r"\x1b\[[\d;]*m", text)
    lines = re.findall(r"\r([^\r\n]*)\x1b\[K", text)
    assert lines and all(len(line) < 60 for line in lines) and any("semi epoch" in line for line in lines)


def a_file_gets_few_lines(work):
    done = train(work, "quiet", "train.epochs=8")
    assert done.returncode == 0 and "\r" not in done.stderr and "\x1b" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if re.fullmatch(LINE, line)]
    stages = [re.match(LINE, line).group(1) for line in lines]
    assert [s for i, s in enumerate(stages) if stages[i - 1:i] != [s]] == ["pretrain", "warmup", "semi"], stages
    half_minutes = int(re.search(r"done in (\d+) s", done.stderr).group(1)) // 30
    assert 3 <= len(lines) <= 6 + half_minutes, lines  # the first, the last of each stage, and one every 30 seconds


if __name__ == "__main__":
    main([a_terminal_shows_loss_speed_time_left_and_waiting, no_color_and_narrow_terminals_are_respected,
          a_file_gets_few_lines])
