"""`make setup`: make `dvc plots show` and `dvc plots diff` write pages that open without a network.

DVC's own page loads Vega, which renders the plots, from the internet. This writes .dvc/plots.html, a page that contains
Vega, and tells DVC to use it in .dvc/config.local: both belong to this clone alone, and neither is in Git.
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

from stages.runtime.cli import run
from stages.runtime.files import atomic_write

DVC = Path(__file__).parents[1] / ".dvc"

# As SVG, text stays sharp at any size of the page.
DRAW = """
const options = {
  renderer: "svg",
  config: {
    font: "system-ui, sans-serif",
    title: {fontSize: 15, fontWeight: 600, offset: 12},
    axis: {labelFontSize: 11, titleFontSize: 12, titleFontWeight: "normal"},
    legend: {labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal"},
    view: {stroke: null},
  },
};
window.vegaEmbed = (place, spec) => vegaEmbed(place, spec, options);
"""

# DVC replaces {plot_divs} by a <div> for each plot, and {refresh_tag} by what `dvc plots show` asks for.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Plots</title>
<style>
body {
  margin: 0;
  background: #f6f8fa;
  color: #24292f;
  font: 15px/1.5 system-ui, sans-serif;
}
main {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(44rem, 100%), 1fr));
  gap: 1rem;
  padding: 1rem;
}
/* A card for each plot. Heatmaps of two revisions are wider than a column: they scroll. */
main > div {
  overflow-x: auto;
  padding: 1rem;
  border: 1px solid #d0d7de;
  border-radius: 8px;
  background: white;
}
img { max-width: 100%; }
</style>
<script>{vega}</script>
</head>
<body>
<main>
{plot_divs}
</main>
<script>
// DVC lists the plots by stage: group them by model, in the order of the models.
const main = document.querySelector("main");
const groups = new Map();
for (const plot of [...main.children].filter((child) => child.id)) {
  const model = plot.id.replace(/^reports_(history|plots_[a-z]+)_/, "");
  groups.set(model, [...(groups.get(model) ?? []), plot]);
}
main.append(...[...groups.values()].flat());
</script>
</body>
</html>
"""


def write_template() -> None:
    """Write .dvc/plots.html and set `plots.html_template` in .dvc/config.local."""
    with atomic_write(DVC / "plots.html") as part:
        part.write_text(PAGE.replace("{vega}", vl_convert.javascript_bundle(DRAW)), encoding="utf-8")
    with Config(str(DVC)).edit("local") as config:
        config["plots"]["html_template"] = "plots.html"
    print("dvc plots: pages open without a network")


if __name__ == "__main__":
    run(write_template)
