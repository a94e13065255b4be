"""Takes the pictures of the page in docs/ from a running `seqrec serve --compare`, with a headless Chromium.

See experiments/README.md for the command.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from selenium import webdriver

DOCS = Path(__file__).parents[1] / "docs"
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--history", nargs="+", required=True, help="raw ids, oldest first")
    parser.add_argument("--out", type=Path, default=DOCS)
    options = parser.parse_args()
    chrome = webdriver.ChromeOptions()
    chrome.binary_location = shutil.which("chromium") or "chromium"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for option in (*OPTIONS, f"--user-data-dir={profile}"):
            chrome.add_argument(option)
        browser = webdriver.Chrome(chrome, webdriver.ChromeService(shutil.which("chromedriver")))
        for name, width, height in (("page-desktop", 1280, 1000), ("page-phone", 375, 1100)):
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get("about:blank")
            browser.get(f"{options.url}/#{','.join(map(quote, options.history))}")
            time.sleep(2)
            if width > 600:
                browser.find_element("xpath", "//button[text()='Similar']").click()
                time.sleep(2)
                browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
            browser.save_screenshot(str(options.out / f"{name}.png"))
        browser.quit()


if __name__ == "__main__":
    main()
