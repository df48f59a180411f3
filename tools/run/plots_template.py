"""`make setup`: make `dvc plots show` and `dvc plots diff` write pages that open without a network.

DVC's own page loads Vega, which renders the plots, from the internet. This writes .dvc/plots.html, a page that contains
Vega, and tells DVC to use it in .dvc/config.local: both belong to this clone alone, and neither is in Git.
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

from stages.runtime.cli import run
from stages.runtime.files import atomic_write

DVC = Path(__file__).parents[2] / ".dvc"


def write_template() -> None:
    """Write .dvc/plots.html and set `plots.html_template` in .dvc/config.local."""
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    with atomic_write(DVC / "plots.html") as part:
        part.write_text(
            page.replace("{vega}", vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")), encoding="utf-8"
        )
    with Config(str(DVC)).edit("local") as config:
        config["plots"]["html_template"] = "plots.html"
    print("dvc plots: pages open without a network")


if __name__ == "__main__":
    run(write_template)
