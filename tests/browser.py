"""A real browser without a window, for tests of pages: Debian's chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium(page, *flags, timeout=120):
    """Open a page in the browser and return what it writes; the test skips, visibly, where there is no browser."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium to look at the page with (apt-get install chromium)")
    words = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--user-data-dir={page.parent / 'browser'}", "--virtual-time-budget=3000", *flags]  # fmt: skip
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run_in(page, script, *flags):
    """Run JavaScript in the page, once it is drawn, and return what it puts into the object `result`."""
    tested = page.with_name(f"tested_{page.name}")
    more = f"""<pre id="result"></pre><script>
    const result = {{ problems: [] }};
    window.addEventListener("error", e => result.problems.push(e.message));
    try {{ {script} }} catch (problem) {{ result.problems.push(String(problem)); }}
    document.getElementById("result").textContent = JSON.stringify(result);
    </script></body>"""
    tested.write_text(page.read_text().replace("</body>", more))
    found = re.search(r'<pre id="result">(.*?)</pre>', chromium(tested, "--dump-dom", *flags), re.S)
    assert found, "the page did not come to its end"
    result = json.loads(html.unescape(found[1]))
    assert result["problems"] == [], result["problems"]
    return result
