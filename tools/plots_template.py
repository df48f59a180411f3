"""`make setup`: what lets `dvc plots show` and `dvc plots diff` write pages that open without a network.

DVC's own page loads Vega, which draws the plots, from the internet. This writes .dvc/plots.html, a page that has Vega
in it, and tells DVC to use it in .dvc/config.local: both are of this clone alone, and neither is in Git.
"""

from pathlib import Path

import vl_convert
from dvc.config import Config

from stages.console import run
from stages.files import replacing

DVC = Path(__file__).parents[1] / ".dvc"

# Drawn as SVG, text stays sharp at any size of the page.
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

# DVC puts a <div> a plot in the place of {plot_divs}, and in that of {refresh_tag} what `dvc plots show` asks for.
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
/* A card a plot. Two revisions' heatmaps are wider than a column: they scroll. */
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
// DVC lists the plots of a stage after those of another: bring together those of a model, in the order of the models.
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
    with replacing(DVC / "plots.html") as part:
        part.write_text(PAGE.replace("{vega}", vl_convert.javascript_bundle(DRAW)), encoding="utf-8")
    with Config(str(DVC)).edit("local") as config:
        config["plots"]["html_template"] = "plots.html"
    print("dvc plots: pages open without a network")


if __name__ == "__main__":
    run(write_template)
