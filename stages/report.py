"""Report all results: reports/README.md for Git, reports/index.html and reports/figures for the reader."""

from stages.config import params
from stages.config.datasets import DatasetConfig, WeightsConfig
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import atomic_write
from stages.runtime.numerics import import_tensorflow


def report() -> None:
    """Write reports/README.md, reports/index.html and reports/figures; send pending results to MLflow."""
    config = params.load()

    from stages.reporting import orphans, readme, results

    orphans.remove_orphans(config)
    models, datasets = results.models(config), results.datasets(config)
    archives: dict[str, DatasetConfig | WeightsConfig] = {**config.datasets, **config.weights}
    synthetic = [name for name, entry in archives.items() if config.is_synthetic(entry)]
    with atomic_write(paths.REPORT) as part:
        part.write_text(readme.render(models, datasets, synthetic))

    import_tensorflow(gpu=False)
    from stages.reporting import build, page
    from stages.tracking import server

    views: dict[str, page.ModelView] = {}
    dataset_views = []
    with atomic_write(paths.FIGURES) as folder:
        for dataset in datasets:
            own = [model for model in models if model.image_dataset == dataset.name]
            view, model_views = build.build(dataset, own, config.seed, folder)
            dataset_views.append(view)
            views |= model_views
    with atomic_write(paths.PAGE) as part:
        text = page.render([views[model.name] for model in models], dataset_views, synthetic)
        part.write_text(text, encoding="utf-8")
    server.flush()
    print(f"{paths.PAGE}: {len(models)} models")


if __name__ == "__main__":
    run(report)
