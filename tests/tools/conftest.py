"""The fake pipeline, reproduced once for the modules that only copy it."""

import pytest

from tests.conftest import CopyFolder, build_once
from tests.tools.fake_pipeline import fake_repository


@pytest.fixture(scope="session")
def copy_fake_repository(tmp_path_factory: pytest.TempPathFactory) -> CopyFolder:
    """Copies what `fake_repository` makes."""
    return build_once(tmp_path_factory, "fake", fake_repository)
