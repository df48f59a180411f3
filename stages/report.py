"""Report all results: reports/README.md for Git, reports/index.html for the reader."""

from stages.config import params
from stages.config.datasets import DatasetConfig, WeightsConfig
from stages.runtime import paths
from stages.runtime.cli import run
from stages.runtime.files import atomic_write
from stages.runtime.numerics import import_tensorflow


def report() -> None:
    """Write reports/README.md and reports/index.html; log the test results in MLflow."""
    config = params.load()

    from stages.reporting import environments, orphans, page, results

    for line in orphans.remove_orphans(config):
        print(line)
    models, datasets = results.models(config), results.datasets(config)
    archives: dict[str, DatasetConfig | WeightsConfig] = {**config.datasets, **config.weights}
    synthetic = sorted(name for name, entry in archives.items() if config.is_synthetic(entry))
    with atomic_write(paths.REPORT) as part:
        part.write_text(
            page.render("README.md.j2", models=models, datasets=datasets, synthetic=synthetic), encoding="utf-8"
        )

    real = any(not config.is_model_synthetic(name) for name in config.models)
    import_tensorflow(config.threads, config.kernels.real if real else config.kernels.synthetic, gpu=False)
    from stages.reporting import audits, build, drawings
    from stages.tracking import sync

    dataset_views = [build.dataset_view(dataset) for dataset in datasets]
    model_views = build.model_views(models, config.seed)
    shown = {"models": model_views, "datasets": dataset_views, "audits": audits.views(config), "synthetic": synthetic}
    with atomic_write(paths.PAGE) as part:
        text = page.render("index.html.j2", **shown)
        part.write_text(text, encoding="utf-8")
    drawings.remove_unused()
    sync.log_evaluations([model.name for model in models])
    for note in environments.notes():
        print(note)
    print(f"{paths.PAGE}: {len(models)} model{'s' * (len(models) != 1)}")


if __name__ == "__main__":
    run(report)
